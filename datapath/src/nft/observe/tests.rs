//! Every change of our table is detected, and changes of other tables are not.

use std::net::UdpSocket;
use std::time::Duration;

use super::*;
use crate::constants::GROUP_ENI;
use crate::marks::Marks;
use crate::netlink::link::{self, End};
use crate::netns::Netns;
use crate::nft::Ruleset;
use crate::nft::tests::translating;
use crate::testing::{netns, run_in, socket_in};

struct Lab {
    netns: Netns,
    nft: Nft,
    watch: NftMonitor,
}

/// A namespace with our table in it and no pending notifications.
fn lab() -> Lab {
    let netns = netns();
    let mut nft = netns.run(Nft::open).unwrap().unwrap();
    let ruleset = Ruleset {
        egress: translating(),
        ..Ruleset::default()
    };
    nft.replace(&ruleset).unwrap();
    let watch = netns.run(NftMonitor::open).unwrap().unwrap();
    Lab { netns, nft, watch }
}

#[test]
fn reading_changes_nothing_and_is_not_reported() {
    let mut lab = lab();
    let first = lab.nft.fingerprint().unwrap();
    assert_eq!(lab.nft.fingerprint().unwrap(), first);
    assert!(!lab.watch.touched().unwrap());
}

#[test]
fn every_change_by_others_is_reported_and_detected() {
    for meddle in [
        "flush ruleset",
        "delete table ip hawser",
        "flush table ip hawser",
        "add rule ip hawser choose_eni accept",
        "insert rule ip hawser choose_eni accept",
        "add chain ip hawser choose_eni { policy drop; }",
        "add chain ip hawser more { type filter hook input priority 0; }; add rule ip hawser more drop",
        "insert rule ip hawser leaving return",
        "flush chain ip hawser mark_eni",
        "add table ip hawser { flags dormant; }",
    ] {
        let mut lab = lab();
        let before = lab.nft.fingerprint().unwrap();
        run_in(&lab.netns, &["nft", meddle]);
        assert!(lab.watch.touched().unwrap(), "{meddle}");
        assert_ne!(lab.nft.fingerprint().unwrap(), before, "{meddle}");
    }
}

/// Exactly the same rules, but not the ones that we created.
#[test]
fn a_table_made_again_is_another_one() {
    let mut lab = lab();
    let before = lab.nft.fingerprint().unwrap();
    let again = "nft list ruleset > /dev/shm/$$.nft; nft flush ruleset; nft -f /dev/shm/$$.nft; rm /dev/shm/$$.nft";
    run_in(&lab.netns, &["sh", "-ec", again]);
    assert_ne!(lab.nft.fingerprint().unwrap(), before);
}

#[test]
fn changes_of_others_objects_are_ignored() {
    let mut lab = lab();
    let before = lab.nft.fingerprint().unwrap();
    let theirs = "add table ip theirs; add chain ip theirs c { type filter hook input priority 0; }; \
                  add rule ip theirs c accept; add table ip6 theirs; delete table ip theirs";
    run_in(&lab.netns, &["nft", theirs]);
    assert!(!lab.watch.touched().unwrap());
    assert_eq!(lab.nft.fingerprint().unwrap(), before);
}

#[test]
fn our_own_changes_have_another_fingerprint() {
    let mut lab = lab();
    let one = lab.nft.fingerprint().unwrap();
    lab.nft.update_local(&translating()).unwrap();
    let two = lab.nft.fingerprint().unwrap();
    assert_ne!(one, two);
    assert!(lab.watch.touched().unwrap());
}

/// Between two links, of which the second is an ENI.
#[test]
fn packets_in_transit_with_bits_of_enis_are_counted() {
    let mut lab = lab();
    let mut socket = socket_in(&lab.netns);
    let ends = [("l1", 0, netns()), ("l2", GROUP_ENI, netns())];
    run_in(
        &lab.netns,
        &["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"],
    );
    for (n, (name, group, end)) in (1..).zip(&ends) {
        let near = End {
            name,
            mtu: None,
            mac: None,
            group: *group,
            up: true,
        };
        let far = End {
            name: "p",
            group: 0,
            up: false,
            ..near
        };
        let pair = link::add_veth(&near, &far, Some(end.as_fd()));
        socket.apply(&pair).unwrap();
        run_in(
            &lab.netns,
            &[
                "ip",
                "addr",
                "add",
                &format!("192.0.2.{}/28", n * 16 + 1),
                "dev",
                name,
            ],
        );
        let inside = format!(
            "ip link set p up; ip addr add 192.0.2.{}/28 dev p; ip route add default via 192.0.2.{}",
            n * 16 + 2,
            n * 16 + 1
        );
        run_in(end, &["sh", "-ec", &inside]);
    }
    let inbox = ends[1]
        .2
        .run(|| UdpSocket::bind("192.0.2.34:7000").unwrap())
        .unwrap();
    inbox
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let outbox = ends[0]
        .2
        .run(|| UdpSocket::bind("192.0.2.18:0").unwrap())
        .unwrap();
    let mut counted = |more: &str| {
        run_in(&lab.netns, &["sh", "-ec", more]);
        outbox.send_to(b"x", "192.0.2.34:7000").unwrap();
        inbox.recv_from(&mut [0; 8]).unwrap();
        lab.nft.transit().unwrap()
    };
    assert_eq!(counted("true"), None);
    let nft = ends[0].2.run(Nft::open).unwrap();
    assert_eq!(nft.unwrap().transit().unwrap(), None, "another namespace");
    let mut nft = lab.netns.run(Nft::open).unwrap().unwrap();
    nft.count_transit(Marks::DEFAULT).unwrap();
    assert_eq!(counted("true"), Some(0));
    let mark = "nft 'table ip theirs { chain c { type filter hook prerouting priority -150; iif l1 meta mark set 0x4001; }; }'";
    assert_eq!(counted(mark), Some(1));
    assert_eq!(counted("ip link set l1 group 27392"), Some(1), "from a pod");
    assert_eq!(
        counted("ip link set l1 group 0; ip link set l2 group 0"),
        Some(1),
        "not by an ENI"
    );
}
