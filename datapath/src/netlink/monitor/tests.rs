//! What is reported, and what is not.

use super::*;
use crate::netlink::link::{self, End, InetConf};
use crate::netlink::neigh::{self, Neighbour};
use crate::testing::{netns, run_in, socket_in};

const FAR: Mac = Mac([2, 0, 0, 0, 0, 9]);

/// A namespace with a link that is up, and a socket in it.
fn lab() -> (Netns, Socket, u32) {
    let netns = netns();
    let mut socket = socket_in(&netns);
    let end = |name, up| End {
        name,
        mtu: None,
        mac: None,
        group: 0,
        up,
    };
    let pair = link::add_veth(&end("d0", true), &end("d1", false), None);
    socket.apply(&pair).unwrap();
    let index = socket.link_by_name("d0").unwrap().unwrap().index;
    (netns, socket, index)
}

#[test]
fn one_authors_changes_can_be_kept_silent_and_the_others_are_not() {
    let (netns, mut ours, index) = lab();
    let mut theirs = socket_in(&netns);
    let mut monitor = Monitor::open_in(&netns, &[Topic::Neighbours]).unwrap();
    monitor.ignore(ours.port());
    ours.apply(&neigh::set_permanent(index, [10, 0, 0, 5], FAR))
        .unwrap();
    assert_eq!(monitor.pending().unwrap(), []);
    theirs
        .apply(&neigh::set_permanent(index, [10, 0, 0, 6], FAR))
        .unwrap();
    let told = monitor.pending().unwrap();
    let [Event::Change(message)] = told.as_slice() else {
        panic!("{told:?}");
    };
    let neighbour = Neighbour::from_message(message).unwrap();
    assert_eq!(neighbour.address, std::net::Ipv4Addr::new(10, 0, 0, 6));
}

#[test]
fn settings_are_reported_with_their_link() {
    let (netns, mut socket, index) = lab();
    let mut monitor = Monitor::open_in(&netns, &[Topic::Settings]).unwrap();
    run_in(&netns, &["sysctl", "-qw", "net.ipv4.conf.d0.rp_filter=2"]);
    let one = Event::Setting { index: Some(index) };
    assert_eq!(monitor.pending().unwrap(), [one]);
    run_in(&netns, &["sysctl", "-qw", "net.ipv4.conf.all.rp_filter=2"]);
    assert_eq!(monitor.pending().unwrap(), [Event::Setting { index: None }]);
    // Therefore, a repair over netlink does not trigger another one.
    socket
        .apply(&link::set_inet_conf(index, &[(InetConf::RpFilter, 1)]))
        .unwrap();
    assert_eq!(monitor.pending().unwrap(), []);
}

#[test]
fn disabled_forwarding_is_reported() {
    let (netns, _socket, _) = lab();
    run_in(&netns, &["sysctl", "-qw", "net.ipv4.ip_forward=1"]);
    let mut monitor = Monitor::open_in(&netns, &[Topic::Settings]).unwrap();
    run_in(&netns, &["sysctl", "-qw", "net.ipv4.ip_forward=0"]);
    let told = monitor.pending().unwrap();
    assert!(told.contains(&Event::Setting { index: None }), "{told:?}");
}
