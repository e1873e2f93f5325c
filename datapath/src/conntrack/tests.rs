//! Tests with real entries: a namespace with connection tracking, and datagrams between addresses of its loopback.

use std::net::UdpSocket;

use super::*;
use crate::netns::Netns;
use crate::testing::{keep_only_net_admin, netns, run_in};

const POD: &str = "10.0.0.7";

/// A namespace with three addresses that tracks every connection. The kernel makes IPv6 addresses usable in a work
/// queue, after some time.
fn lab() -> Netns {
    let netns = netns();
    let boot = "ip link set lo up; for n in 1 7 8; do ip addr add 10.0.0.$n/32 dev lo; done; \
                ip addr add fd00::7/128 dev lo nodad; ip addr add fd00::8/128 dev lo nodad; \
                nft 'table inet t { chain c { type filter hook output priority 0; ct state new accept; }; \
                chain d { type nat hook output priority -100; ip daddr 10.0.0.1 dnat ip to 10.0.0.7; }; }'; \
                for n in $(seq 500); do \
                  [ $(ip -6 route show table local | grep -c '^local fd00::') = 2 ] && exit; sleep 0.01; \
                done; exit 1";
    run_in(&netns, &["sh", "-ec", boot]);
    netns
}

/// Sends one datagram. The port does not matter: nobody listens, but the entry is created.
fn talk(netns: &Netns, from: &str, to: &str) {
    let (from, to) = (ip(from), ip(to));
    netns
        .run(|| {
            let socket = UdpSocket::bind((from, 0)).unwrap();
            socket.send_to(b"hello", (to, 4242)).unwrap();
        })
        .unwrap();
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// UDP entries, from the kernel's own file.
fn entries(netns: &Netns) -> Vec<String> {
    let text = netns
        .run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"))
        .unwrap()
        .unwrap();
    let udp = text.lines().filter(|line| line.contains(" udp "));
    udp.map(str::to_owned).collect()
}

fn forget(netns: &Netns, addresses: &[&str]) -> usize {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    netns
        .run(|| Conntrack::open()?.forget(&addresses))
        .unwrap()
        .unwrap()
}

#[test]
fn a_pods_connections_go_and_others_stay() {
    let netns = lab();
    talk(&netns, POD, "10.0.0.8");
    talk(&netns, "10.0.0.8", POD);
    talk(&netns, "10.0.0.8", "10.0.0.8");
    assert_eq!(entries(&netns).len(), 3);
    assert_eq!(forget(&netns, &[POD]), 2);
    let left = entries(&netns);
    assert!(left.len() == 1 && !left[0].contains(POD), "{left:?}");
    assert_eq!(forget(&netns, &[POD]), 0);
}

/// The client of a service: only the reply direction contains the pod.
#[test]
fn a_connection_that_was_translated_to_the_pod_goes_too() {
    let netns = lab();
    talk(&netns, "10.0.0.8", "10.0.0.1");
    let made = entries(&netns);
    assert!(
        made.len() == 1 && made[0].contains("src=10.0.0.7"),
        "{made:?}"
    );
    assert_eq!(forget(&netns, &["10.0.0.9"]), 0);
    assert_eq!(forget(&netns, &[POD, "10.0.0.9"]), 1);
    assert_eq!(entries(&netns), Vec::<String>::new());
}

#[test]
fn connections_to_a_port_stay_if_they_lead_to_its_pod() {
    let netns = lab();
    talk(&netns, "10.0.0.8", "10.0.0.8");
    talk(&netns, "10.0.0.8", "10.0.0.1");
    let forget = |port: u16, pods: &[&str], at: &[&str]| {
        let pods = pods.iter().map(|pod| ip(pod)).collect();
        let at = at.iter().map(|own| ip(own)).collect();
        let forget = || Conntrack::open()?.forget_udp(&[(port, pods)].into(), &at);
        netns.run(forget).unwrap().unwrap()
    };
    let own = ["10.0.0.1", "10.0.0.8"];
    assert_eq!(forget(4243, &[], &own), 0, "another port");
    assert_eq!(forget(4242, &[], &["10.0.0.9"]), 0, "another address");
    assert_eq!(forget(4242, &[POD], &own), 1);
    let left = entries(&netns);
    assert!(left.len() == 1 && left[0].contains(POD), "{left:?}");
    assert_eq!(forget(4242, &["10.0.0.8"], &own), 1, "another pod");
    assert_eq!(entries(&netns), Vec::<String>::new());
}

#[test]
fn ipv6_connections_are_distinguished_from_ipv4_ones() {
    let netns = lab();
    talk(&netns, "fd00::7", "fd00::8");
    talk(&netns, POD, "10.0.0.8");
    assert_eq!(forget(&netns, &["fd00::7"]), 1);
    assert_eq!(entries(&netns).len(), 1);
    assert_eq!(forget(&netns, &["fd00::7", POD]), 1);
}

#[test]
fn more_connections_than_one_datagram_holds() {
    let netns = lab();
    for _ in 0..200 {
        talk(&netns, POD, "10.0.0.8");
    }
    let made = entries(&netns).len();
    assert!(made > 2 * BATCH, "ports are drawn at random: {made}");
    assert_eq!(forget(&netns, &[POD]), made);
    assert_eq!(entries(&netns), Vec::<String>::new());
}

#[test]
fn a_namespace_without_connection_tracking_has_nothing_to_delete() {
    assert_eq!(forget(&netns(), &[POD, "fd00::7"]), 0);
}

#[test]
fn net_admin_is_enough() {
    let netns = lab();
    talk(&netns, POD, "10.0.0.8");
    let mut conntrack = netns.run(Conntrack::open).unwrap().unwrap();
    keep_only_net_admin();
    assert_eq!(conntrack.forget(&[ip(POD)].into()).unwrap(), 1);
}

#[test]
fn a_truncated_attribute_is_ignored() {
    for bytes in [&[][..], &[8, 0], &[8, 0, 1, 0, 1], &[3, 0, 1, 0], &[0; 8]] {
        assert_eq!(attributes(bytes).count(), 0, "{bytes:?}");
    }
    let (four, kind) = (8_u16.to_ne_bytes(), 1_u16.to_ne_bytes());
    let whole = [&four[..], &kind, &[10, 0, 0, 7]].concat();
    assert_eq!(attributes(&whole).count(), 1);
}
