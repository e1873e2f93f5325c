//! What happens to packets on a configured node, and while it is configured again.

use super::*;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn the_number_of_rules_does_not_depend_on_the_number_of_pods() {
    let mut lab = Lab::new();
    lab.set_up();
    let _first = lab.add_pod(100, 1);
    let objects = |lab: &Lab| (lab.show("ip rule"), lab.show("nft list ruleset"));
    let with_one = objects(&lab);
    let _others: Vec<_> = (101..140)
        .map(|i| lab.add_pod(i, u16::from(i % 2)))
        .collect();
    assert_eq!(pod::list(&mut lab.socket).unwrap().len(), 40);
    assert_eq!(objects(&lab), with_one);
}

#[test]
fn a_node_without_pods_routes_as_before() {
    let mut lab = Lab::new();
    lab.set_up();
    let main = lab.socket.routes(Family::V4, Some(MAIN)).unwrap();
    let default = main
        .iter()
        .find(|r: &&Route| r.dst.prefix_len() == 0)
        .unwrap();
    assert_eq!(default.gateway, Some(Ipv4Addr::new(10, 0, 0, 1).into()));
    let found = lab.show("ip -o route get 10.0.0.1");
    assert!(
        found[0].starts_with("10.0.0.1 dev eth0 src 10.0.0.10"),
        "{found:?}"
    );
    let found = lab.show("ip -o route get 8.8.8.8 from 10.0.0.20");
    assert!(
        found[0].contains("via 10.0.0.1 dev eth1 table 2"),
        "{found:?}"
    );
}

#[test]
fn each_pod_leaves_by_the_eni_of_its_address() {
    let mut lab = Lab::new();
    lab.set_up();
    for (i, index) in [(11, 0), (21, 1)] {
        let pod = lab.add_pod(i, index);
        let wire = &lab.wires[usize::from(index)];
        let inbox = wire
            .run(|| UdpSocket::bind("10.0.0.1:7000").unwrap())
            .unwrap();
        inbox.set_read_timeout(Some(PATIENCE)).unwrap();
        let outbox = pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        outbox.send_to(b"x", "10.0.0.1:7000").unwrap();
        let (_, from) = inbox.recv_from(&mut [0; 8]).unwrap();
        assert_eq!(from.ip(), Ipv4Addr::new(10, 0, 0, i));
    }
}

/// A packet gets the mark of its pod's ENI, whether another program has marked it or not, and keeps the other's bits.
#[test]
fn every_index_has_its_mark_beside_those_of_others() {
    let mut lab = Lab::new();
    let pod = lab.add_pod(11, 0);
    let host_end = pod_link(11, 0).host_name;
    for (marks, last) in [(MARKS, 126), (Marks::new(0x80, 0x0f00).unwrap(), 14)] {
        let egress = Egress {
            marks,
            ..Egress::default()
        };
        let config = HostConfig { egress, ..config() };
        lab.on_host(|socket| prepare(socket, &config).unwrap());
        for index in [0, 1, 2, 7, 8, 13, 14, 62, 63, 64, 125, 126]
            .into_iter()
            .filter(|i| *i <= last)
        {
            let index = EniIndex::new(index).unwrap();
            let mark = marks.of(index).unwrap();
            for theirs in [0, 0x4000, 0x4000 | marks.all(), marks.primary()] {
                lab.show(&format!(
                    "ip link set {host_end} group {}; nft 'table ip eye; flush table ip eye; table ip eye {{ \
                     chain before {{ type filter hook prerouting priority -95; meta mark set {theirs}; }}; \
                     chain after {{ type filter hook prerouting priority -80; meta mark {} counter; }}; }}'",
                    Uplink::Eni(index).group(),
                    theirs & !marks.all() | mark,
                ));
                pod.run(|| {
                    UdpSocket::bind("0.0.0.0:0")
                        .unwrap()
                        .send_to(b"x", "10.0.0.1:7000")
                        .unwrap()
                })
                .unwrap();
                let eye = lab.show("nft list chain ip eye after").join(" ");
                assert!(
                    eye.contains("counter packets 1 "),
                    "ENI {index}, mark {theirs:#x}: {eye}"
                );
            }
        }
    }
}

#[test]
fn two_pods_of_different_enis_meet_on_the_node() {
    let mut lab = Lab::new();
    lab.set_up();
    let (a, b) = (lab.add_pod(11, 0), lab.add_pod(21, 1));
    let inbox = a
        .run(|| UdpSocket::bind("10.0.0.11:7000").unwrap())
        .unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    b.run(|| {
        UdpSocket::bind("0.0.0.0:0")
            .unwrap()
            .send_to(b"x", "10.0.0.11:7000")
            .unwrap()
    })
    .unwrap();
    let (_, from) = inbox.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 0, 0, 21));
}

/// `net.ipv4.conf.all.rp_filter=2`, which systemd sets on some distributions, disables the pods' strict check.
#[test]
fn a_pod_cannot_use_another_pods_address_if_the_kernels_check_is_loose() {
    let mut lab = Lab::new();
    lab.show("sysctl -qw net.ipv4.conf.all.rp_filter=2");
    lab.set_up();
    assert!(
        lab.show("nft list ruleset")
            .contains(&"iifgroup 27392/25 fib saddr . iif oif missing drop".to_owned())
    );
    let (sender, receiver) = (lab.add_pod(11, 0), lab.add_pod(21, 1));
    let eth0 = socket_in(&sender)
        .link_by_name("eth0")
        .unwrap()
        .unwrap()
        .index;
    let forged = Ipv4Addr::new(10, 0, 0, 77);
    socket_in(&sender)
        .apply(&addr::add(&Address::host(eth0, forged)))
        .unwrap();
    let inbox = receiver
        .run(|| UdpSocket::bind("10.0.0.21:7000").unwrap())
        .unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    for source in [forged, Ipv4Addr::new(10, 0, 0, 11)] {
        let outbox = sender
            .run(|| UdpSocket::bind((source, 0)).unwrap())
            .unwrap();
        outbox.send_to(b"x", "10.0.0.21:7000").unwrap();
    }
    let (_, from) = inbox.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 0, 0, 11));
}

/// A transaction takes effect at once for rules, but not for the sets and maps that they use. With a set of local
/// destinations, almost all of these connections were sent through the primary ENI permanently. With a map from group
/// to mark, this happened to one packet in six hundred.
#[test]
fn no_packet_goes_astray_while_the_table_is_replaced() {
    const REPLACEMENTS: usize = 120;
    let mut lab = Lab::new();
    lab.set_up();
    let pod = lab.add_pod(21, 1);
    lab.show(
        "nft 'table ip eye { chain c { type filter hook forward priority 0; \
         oifname != eth1 counter; oifname eth1 counter; }; }'",
    );
    let before = lab.show("nft list table ip hawser");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| pod.run(|| send_from_many_ports(&stop)).unwrap());
        let mut replaced = 0;
        // The test takes as many packets as it needs: how many pass during one replacement depends on the machine.
        while replaced < REPLACEMENTS && !sender.is_finished() {
            lab.on_host(|socket| prepare(socket, &config()).unwrap());
            replaced += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert_eq!(replaced, REPLACEMENTS, "the sender ended early");
    });
    let eye = lab.show("nft list table ip eye").join(" ");
    assert!(
        eye.contains("!= \"eth1\" counter packets 0 bytes 0"),
        "{eye}"
    );
    assert!(
        !eye.contains("oifname \"eth1\" counter packets 0 bytes 0"),
        "{eye}"
    );
    assert_eq!(lab.show("nft list table ip hawser"), before);
}

/// Nobody answers, so each packet belongs to a new connection, for which a decision is made.
fn send_from_many_ports(stop: &AtomicBool) {
    const MOST_PACKETS: usize = 100_000_000;
    let sockets: Vec<_> = (0..500)
        .map(|_| UdpSocket::bind("10.0.0.21:0").unwrap())
        .collect();
    for socket in sockets.iter().cycle().take(MOST_PACKETS) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        // The kernel refuses packets while the router's address is being resolved.
        drop(socket.send_to(b"?", "10.0.9.9:9"));
    }
}

/// A DHCP client, a VPN client and a container bridge write into main and add rules (public case 22).
#[test]
fn pods_do_not_depend_on_the_routes_of_main() {
    let mut lab = Lab::new();
    lab.set_up();
    let pods = [(11, 0), (21, 1)].map(|(i, index)| (lab.add_pod(i, index), i, usize::from(index)));
    for wire in &lab.wires {
        run_in(wire, &["ip", "addr", "add", "203.0.113.9/32", "dev", "lo"]);
        run_in(wire, &["ip", "addr", "add", "10.0.0.30/32", "dev", "lo"]);
    }
    for meddle in [
        "true",
        "ip route add 10.0.0.30 dev eth1 proto dhcp scope link src 10.0.0.20 metric 512",
        "ip route add default via 10.0.0.1 dev eth1 onlink proto dhcp metric 512; \
         ip route del default via 10.0.0.1 dev eth0; \
         ip route add default via 10.0.0.1 dev eth0 proto dhcp metric 1024",
        "ip route add 203.0.113.0/24 via 10.0.0.1 dev eth1 onlink",
        "ip link add bridge type veth peer name spare; ip link set bridge up; ip link set spare up; \
         ip addr add 10.0.0.129/25 dev bridge; ip route add 10.0.0.30 dev bridge metric 1",
        "ip rule add pref 5210 lookup 52; ip route add default dev bridge table 52",
    ] {
        lab.show(meddle);
        for (pod, i, eni) in &pods {
            let own = Ipv4Addr::new(10, 0, 0, *i);
            let seen = arrives(pod, &lab.wires[*eni], "10.0.0.30:7000");
            assert_eq!(seen, Some(own), "in the VPC, after {meddle}");
            let seen = arrives(pod, &lab.wires[0], "203.0.113.9:7000");
            let translated = Ipv4Addr::new(10, 0, 0, 10);
            assert_eq!(seen, Some(translated), "outside the VPC, after {meddle}");
        }
    }
}

/// A network that exists only on the node, such as a container bridge's, is reached from every pod.
#[test]
fn pods_reach_networks_of_the_node() {
    let mut lab = Lab::new();
    lab.set_up();
    let container = netns();
    let near = End {
        name: "docker0",
        mtu: None,
        mac: None,
        group: 0,
        up: true,
    };
    let far = End {
        name: "eth0",
        up: false,
        ..near
    };
    let pair = link::add_veth(&near, &far, Some(container.as_fd()));
    lab.socket.apply(&pair).unwrap();
    lab.show("ip addr add 172.17.0.1/16 dev docker0");
    let inside = "ip link set eth0 up; ip addr add 172.17.0.2/16 dev eth0; ip route add default via 172.17.0.1";
    run_in(&container, &["sh", "-ec", inside]);
    for (i, index) in [(11, 0), (21, 1)] {
        let pod = lab.add_pod(i, index);
        assert!(
            arrives(&pod, &container, "172.17.0.2:7000").is_some(),
            "{index}"
        );
    }
}

/// Marks that other programs set on the node's own packets are theirs (public case 31).
#[test]
fn the_nodes_own_packets_pass_over_the_rules_for_pods() {
    let mut lab = Lab::new();
    lab.set_up();
    for mark in ["0x1", "0x2", "0x80", "0xff"] {
        let found = lab.show(&format!("ip -o route get 10.0.0.30 mark {mark}"));
        let by_main = found[0].starts_with("10.0.0.30 dev eth0 src 10.0.0.10");
        assert!(by_main, "mark {mark}: {found:?}");
    }
    lab.show("nft 'table ip theirs { chain c { type route hook output priority mangle; meta mark set meta mark | 0x2; }; }'");
    let inbox = lab.wires[0]
        .run(|| UdpSocket::bind("10.0.0.1:7000").unwrap())
        .unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let outbox = lab.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    outbox.unwrap().send_to(b"x", "10.0.0.1:7000").unwrap();
    let (_, from) = inbox.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 0, 0, 10));
}

#[test]
fn rules_of_others_that_use_our_bits_are_found() {
    let mut lab = Lab::new();
    lab.set_up();
    lab.show(
        "ip rule add pref 100 fwmark 0x1/0xf lookup 7; ip rule add pref 101 fwmark 0x80000/0xff0000 lookup 52; \
         ip rule add pref 102 fwmark 0x180/0x180 lookup 8",
    );
    let present = lab.socket.rules(Family::V4).unwrap();
    let found: Vec<_> = conflicts(&present, MARKS)
        .iter()
        .map(|r| r.priority)
        .collect();
    assert_eq!(found, [100, 102]);
    assert_eq!(
        conflicts(&present, Marks::new(0x1000, 0x7f00_0000).unwrap()),
        []
    );
}

/// Probes and other packets of the node to a pod have the primary's address, whatever other addresses there are (public
/// case 29).
#[test]
fn the_node_speaks_to_pods_with_the_primary_address() {
    let mut lab = Lab::new();
    lab.show("ip addr add 198.51.100.7/32 dev lo");
    lab.set_up();
    let pod = lab.add_pod(21, 1);
    let inbox = pod
        .run(|| UdpSocket::bind("10.0.0.21:7000").unwrap())
        .unwrap();
    inbox.set_read_timeout(Some(PATIENCE)).unwrap();
    let outbox = lab.host.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
    outbox.unwrap().send_to(b"x", "10.0.0.21:7000").unwrap();
    let (_, from) = inbox.recv_from(&mut [0; 8]).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 0, 0, 10));
}

/// From which address a datagram of `pod` to `to` arrives in `receiver`, if it does.
fn arrives(pod: &Netns, receiver: &Netns, to: &str) -> Option<Ipv4Addr> {
    let inbox = receiver.run(|| UdpSocket::bind(to).unwrap()).unwrap();
    let patience = Duration::from_millis(500);
    inbox.set_read_timeout(Some(patience)).unwrap();
    let outbox = pod.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    outbox.send_to(b"x", to).unwrap();
    let (_, from) = inbox.recv_from(&mut [0; 8]).ok()?;
    match from.ip() {
        std::net::IpAddr::V4(from) => Some(from),
        std::net::IpAddr::V6(_) => None,
    }
}
