//! The ruleset of what leaves by the primary ENI, as Debian's nft reads it back.

use super::*;
use crate::netlink::Errno;
use crate::netns::Netns;
use crate::nft::{Nft, Ruleset};
use crate::testing::{netns, run_in};

/// Of the loopback, which every namespace has.
const LO: u32 = 1;

fn lab() -> (Netns, Nft) {
    let netns = netns();
    let nft = netns.run(Nft::open).unwrap().unwrap();
    (netns, nft)
}

fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn egress(ports: SourcePorts) -> Egress {
    Egress {
        local: nets(&["10.0.0.0/16"]),
        snat: Some(Snat {
            to: Ipv4Addr::new(10, 0, 0, 10),
            ports,
        }),
        node_ports: true,
        ..Egress::default()
    }
}

fn ruleset(egress: Egress) -> Ruleset {
    Ruleset {
        primary: LO,
        egress,
        ..Ruleset::default()
    }
}

fn listed(netns: &Netns, what: &[&str]) -> String {
    run_in(netns, &[&["nft", "list"], what].concat())
}

#[test]
fn the_ruleset_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.replace(&ruleset(egress(SourcePorts::Random))).unwrap();
    let wanted = "\
table ip hawser {
	map eni_of_group {
		type devgroup : verdict
		elements = { 27392 : goto eni_0 }
	}

	set local_set {
		type ipv4_addr
		flags interval
		elements = { 10.0.0.0/16 }
	}

	chain source_nat {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr @local_set return
		oifname \"vlan*\" return
		fib daddr type local return
		fib saddr . oif type local return
		snat to 10.0.0.10 fully-random
	}

	chain nodeport_in {
		type filter hook prerouting priority mangle; policy accept;
		iif \"lo\" ct state new fib daddr . iif type local ct mark set ct mark | 0x00000080
	}

	chain choose_eni {
		type filter hook prerouting priority dstnat + 10; policy accept;
		iifgroup != 27392/25 return
		fib daddr type local iifgroup vmap @eni_of_group
		ct state new ip daddr != @local_set ct mark set ct mark | 0x00000080
		ct mark & 0x00000080 == 0x00000080 meta mark set meta mark & 0xffffff80 | 0x00000080 return
		iifgroup vmap @eni_of_group
	}

	chain eni_0 {
		meta mark set meta mark & 0xffffff00
	}
}
";
    assert_eq!(listed(&netns, &["ruleset"]), wanted);
}

#[test]
fn each_switch_takes_its_chains_and_clauses_away() {
    let (netns, mut nft) = lab();
    let all = egress(SourcePorts::Random);
    for (snat, node_ports) in [(false, false), (false, true), (true, false), (true, true)] {
        nft.replace(&ruleset(Egress {
            snat: all.snat.filter(|_| snat),
            node_ports,
            ..all.clone()
        }))
        .unwrap();
        let text = listed(&netns, &["ruleset"]);
        for of_snat in [
            "chain source_nat",
            "set local_set",
            "ip daddr != @local_set",
        ] {
            assert_eq!(text.contains(of_snat), snat, "{of_snat} in {text}");
        }
        assert_eq!(text.contains("chain nodeport_in"), node_ports, "{text}");
        let restored = text.contains("ct mark & 0x00000080 == 0x00000080");
        assert_eq!(restored, snat || node_ports, "{text}");
    }
}

#[test]
fn ports_are_chosen_as_told() {
    let (netns, mut nft) = lab();
    for (ports, rule) in [
        (SourcePorts::Random, "snat to 10.0.0.10 fully-random\n"),
        (SourcePorts::Hashed, "snat to 10.0.0.10 random\n"),
        (SourcePorts::Kept, "snat to 10.0.0.10\n"),
    ] {
        nft.replace(&ruleset(egress(ports))).unwrap();
        let chain = listed(&netns, &["chain", "ip", "hawser", "source_nat"]);
        assert!(chain.contains(rule), "{chain}");
    }
}

#[test]
fn another_mark_is_used_throughout_and_the_default_one_left_alone() {
    let (netns, mut nft) = lab();
    let marked = Egress {
        mark: 0x200,
        ..egress(SourcePorts::Random)
    };
    nft.replace(&ruleset(marked)).unwrap();
    nft.add_eni(1, 0x200).unwrap();
    let text = listed(&netns, &["ruleset"]);
    for clause in [
        "ct mark set ct mark | 0x00000200",
        "ct mark & 0x00000200 == 0x00000200 meta mark set meta mark & 0xffffff80 | 0x00000200 return",
        "meta mark set meta mark & 0xfffffd80\n",
        "meta mark set meta mark & 0xfffffd81 | 0x00000001\n",
    ] {
        assert!(text.contains(clause), "{clause} in {text}");
    }
}

#[test]
fn the_set_changes_alone() {
    let (netns, mut nft) = lab();
    let full = egress(SourcePorts::Random);
    nft.replace(&ruleset(full.clone())).unwrap();
    let rules = || run_in(&netns, &["nft", "-a", "-t", "list", "ruleset"]);
    let before = rules();
    let steps: [(&[&str], &str); 6] = [
        (
            &["10.0.0.0/16", "100.64.0.0/16"],
            "{ 10.0.0.0/16, 100.64.0.0/16 }",
        ),
        // Neighbours, and one within another.
        (
            &["10.0.0.0/16", "10.1.0.0/16", "10.0.3.0/24"],
            "{ 10.0.0.0/16, 10.1.0.0/16 }",
        ),
        // One that contains what was there before.
        (&["10.0.0.0/8"], "{ 10.0.0.0/8 }"),
        (
            &["10.0.0.0/16", "240.0.0.0/4"],
            "{ 10.0.0.0/16, 240.0.0.0/4 }",
        ),
        (&["0.0.0.0/0", "10.0.0.0/16"], "{ 0.0.0.0/0 }"),
        (&["10.0.0.0/16"], "{ 10.0.0.0/16 }"),
    ];
    let mut old = full.local;
    for (new, wanted) in steps {
        let new = nets(new);
        nft.update_local(&old, &new).unwrap();
        let set = listed(&netns, &["set", "ip", "hawser", "local_set"]);
        let words = set.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(wanted), "{wanted} in {words}");
        old = new;
    }
    assert_eq!(rules(), before, "handles included: nothing was made anew");
}

#[test]
fn a_set_that_is_not_as_believed_is_told_and_left() {
    let (netns, mut nft) = lab();
    nft.replace(&ruleset(egress(SourcePorts::Random))).unwrap();
    let before = listed(&netns, &["ruleset"]);
    let (believed, new) = (nets(&["172.16.0.0/12"]), nets(&["192.168.0.0/16"]));
    let error = nft.update_local(&believed, &new).unwrap_err();
    assert!(error.is(Errno::ENOENT), "{error}");
    assert_eq!(listed(&netns, &["ruleset"]), before);
}
