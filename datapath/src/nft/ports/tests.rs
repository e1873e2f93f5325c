//! The table as printed by Debian's nft, and its elements.

use std::net::IpAddr;

use nettypes::{HostPort, Transport};

use super::*;
use crate::netns::Netns;
use crate::testing::{netns, run_in};

/// The loopback, which every namespace has.
const RULES: PortRules = PortRules {
    family: Family::V4,
    primary: Some((1, 0x80)),
};
const RULES_V6: PortRules = PortRules {
    family: Family::V6,
    primary: None,
};

fn lab() -> (Netns, Nft) {
    let netns = netns();
    let nft = netns.run(Nft::open).unwrap().unwrap();
    (netns, nft)
}

fn listed(netns: &Netns) -> String {
    run_in(netns, &["nft", "list", "ruleset"])
}

fn port(transport: Transport, port: u16, address: Option<&str>, pod_port: u16) -> HostPort {
    HostPort {
        transport,
        port,
        address: address.map(|text| text.parse().unwrap()),
        pod_port,
    }
}

fn pod(last: u8) -> IpAddr {
    [10, 0, 3, last].into()
}

fn web() -> BTreeSet<PortEntry> {
    let ports = [
        port(Transport::Tcp, 8080, None, 80),
        port(Transport::Udp, 53, Some("10.0.0.5"), 5353),
        port(Transport::Sctp, 65535, None, 1),
    ];
    PortEntry::of(pod(7), &ports)
}

const NONE: BTreeSet<PortEntry> = BTreeSet::new();

#[test]
fn the_table_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.set_up_ports(&RULES).unwrap();
    nft.change_ports(Family::V4, &web(), &NONE).unwrap();
    let wanted = "\
table ip hawser_ports {
	map by_address {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 10.0.0.5 . udp . 53 : 10.0.3.7 . 5353 }
	}

	map by_port {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 10.0.3.7 . 80,
			     sctp . 65535 : 10.0.3.7 . 1 }
	}

	set to_itself {
		type ipv4_addr . ipv4_addr
		elements = { 10.0.3.7 . 10.0.3.7 }
	}

	set services {
		type ipv4_addr
	}

	chain to_pod {
		dnat ip to ip daddr . meta l4proto . th dport map @by_address
		dnat ip to meta l4proto . th dport map @by_port
	}

	chain to_pod_by_primary {
		ct mark set ct mark | 0x00000080 dnat ip to ip daddr . meta l4proto . th dport map @by_address
		ct mark set ct mark | 0x00000080 dnat ip to meta l4proto . th dport map @by_port
	}

	chain prerouting {
		type nat hook prerouting priority dstnat + 5; policy accept;
		ip daddr @services return
		fib daddr type local iif \"lo\" jump to_pod_by_primary
		fib daddr type local jump to_pod
	}

	chain output {
		type nat hook output priority -95; policy accept;
		ip daddr @services return
		fib daddr type local jump to_pod
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 5; policy accept;
		ip saddr . ip daddr @to_itself masquerade
		ip saddr 127.0.0.0/8 oifgroup 27392/25 masquerade
	}

	chain guard_loopback {
		type filter hook prerouting priority raw; policy accept;
		ip saddr 127.0.0.0/8 iifgroup 27392/25 drop
		ip daddr 127.0.0.0/8 iifgroup 27392/25 drop
	}
}
";
    assert_eq!(listed(&netns), wanted);
}

#[test]
fn the_table_of_ipv6_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.set_up_ports(&RULES_V6).unwrap();
    let ports = [
        port(Transport::Tcp, 8080, None, 80),
        port(Transport::Udp, 53, Some("fd00::5"), 5353),
    ];
    let entries = PortEntry::of("fd00::7".parse().unwrap(), &ports);
    nft.change_ports(Family::V6, &entries, &NONE).unwrap();
    assert_eq!(nft.ports(Family::V6).unwrap(), Some(entries));
    let wanted = "\
table ip6 hawser_ports {
	map by_address {
		type ipv6_addr . inet_proto . inet_service : ipv6_addr . inet_service
		elements = { fd00::5 . udp . 53 : fd00::7 . 5353 }
	}

	map by_port {
		type inet_proto . inet_service : ipv6_addr . inet_service
		elements = { tcp . 8080 : fd00::7 . 80 }
	}

	set to_itself {
		type ipv6_addr . ipv6_addr
		elements = { fd00::7 . fd00::7 }
	}

	set services {
		type ipv6_addr
	}

	chain to_pod {
		dnat ip6 to ip6 daddr . meta l4proto . th dport map @by_address
		dnat ip6 to meta l4proto . th dport map @by_port
	}

	chain to_pod_by_primary {
	}

	chain prerouting {
		type nat hook prerouting priority dstnat + 5; policy accept;
		ip6 daddr @services return
		fib daddr type local jump to_pod
	}

	chain output {
		type nat hook output priority -95; policy accept;
		ip6 daddr @services return
		fib daddr type local jump to_pod
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 5; policy accept;
		ip6 saddr . ip6 daddr @to_itself masquerade
	}

	chain guard_loopback {
		type filter hook prerouting priority raw; policy accept;
	}
}
";
    assert_eq!(listed(&netns), wanted);
}

#[test]
fn elements_stay_when_the_rules_are_written_again() {
    let (netns, mut nft) = lab();
    assert_eq!(nft.ports(Family::V4).unwrap(), None);
    nft.set_up_ports(&RULES).unwrap();
    nft.change_ports(Family::V4, &web(), &NONE).unwrap();
    let before = listed(&netns);
    nft.set_up_ports(&RULES).unwrap();
    assert_eq!(listed(&netns), before);
    let other = PortRules {
        primary: Some((1, 0x100)),
        ..RULES
    };
    nft.set_up_ports(&other).unwrap();
    assert!(listed(&netns).contains("ct mark | 0x00000100"));
    assert_eq!(nft.ports(Family::V4).unwrap(), Some(web()));
}

#[test]
fn many_ports_fit_into_one_transaction() {
    let (_netns, mut nft) = lab();
    nft.set_up_ports(&RULES).unwrap();
    let ports: Vec<_> = (1..=1024)
        .map(|n| port(Transport::Tcp, n, None, n))
        .collect();
    let entries = PortEntry::of(pod(7), &ports);
    nft.change_ports(Family::V4, &entries, &NONE).unwrap();
    assert_eq!(nft.ports(Family::V4).unwrap().as_ref(), Some(&entries));
    nft.change_ports(Family::V4, &NONE, &entries).unwrap();
    assert_eq!(nft.ports(Family::V4).unwrap(), Some(NONE));
}

#[test]
fn the_fingerprint_is_of_the_rules_and_not_of_the_elements() {
    let (netns, mut nft) = lab();
    assert_eq!(nft.ports_fingerprint(Family::V4).unwrap(), None);
    nft.set_up_ports(&RULES).unwrap();
    let empty = nft.ports_fingerprint(Family::V4).unwrap();
    assert!(empty.is_some());
    nft.change_ports(Family::V4, &web(), &NONE).unwrap();
    assert_eq!(nft.ports_fingerprint(Family::V4).unwrap(), empty);
    for meddle in [
        "insert rule ip hawser_ports to_pod return",
        "flush chain ip hawser_ports guard_loopback",
        "add chain ip hawser_ports more { type filter hook input priority 0; }; add rule ip hawser_ports more drop",
    ] {
        let before = nft.ports_fingerprint(Family::V4).unwrap();
        run_in(&netns, &["nft", meddle]);
        assert_ne!(
            nft.ports_fingerprint(Family::V4).unwrap(),
            before,
            "{meddle}"
        );
    }
    nft.replace_ports(&RULES, &web()).unwrap();
    assert!(!listed(&netns).contains("more"));
    assert_eq!(nft.ports(Family::V4).unwrap(), Some(web()));
}

#[test]
fn a_port_of_another_pod_is_not_taken_and_one_that_is_absent_not_removed() {
    let (_netns, mut nft) = lab();
    nft.set_up_ports(&RULES).unwrap();
    nft.change_ports(Family::V4, &web(), &NONE).unwrap();
    nft.change_ports(Family::V4, &web(), &NONE).unwrap();
    let other = PortEntry::of(pod(8), &[port(Transport::Tcp, 8080, None, 80)]);
    let taken = nft.change_ports(Family::V4, &other, &NONE).unwrap_err();
    let clash = [Errno::EEXIST, Errno::EBUSY];
    assert!(clash.iter().any(|errno| taken.is(*errno)), "{taken}");
    // In one transaction, it passes from one to the other.
    nft.change_ports(Family::V4, &other, &web()).unwrap();
    assert_eq!(nft.ports(Family::V4).unwrap(), Some(other));
    let absent = nft.change_ports(Family::V4, &NONE, &web()).unwrap_err();
    assert!(absent.is(Errno::ENOENT), "{absent}");
}
