//! The ruleset for packets through the primary ENI, as printed by Debian's nft.

use super::*;
use crate::netns::Netns;
use crate::nft::{Nft, Ruleset};
use crate::testing::{netns, run_in};

/// The loopback, which every namespace has.
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
	chain leaving {
		ip daddr 10.0.0.0/16 return
		fib daddr type local return
		ct mark set ct mark | 0x00000080
	}

	chain translated {
		ip daddr 10.0.0.0/16 return
		snat to 10.0.0.10 fully-random
	}

	chain source_nat {
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"vlan*\" return
		fib daddr type local return
		fib saddr . oif type local return
		goto translated
	}

	chain nodeport_in {
		type filter hook prerouting priority mangle; policy accept;
		iif \"lo\" ct state new fib daddr . iif type local ct mark set ct mark | 0x00000080
	}

	chain mark_eni {
		iifgroup & 1 == 1 meta mark set meta mark & 0xfffffffe
		iifgroup & 2 == 2 meta mark set meta mark & 0xfffffffd
		iifgroup 27392/30 return
		iifgroup & 4 == 4 meta mark set meta mark & 0xfffffffb
		iifgroup & 8 == 8 meta mark set meta mark & 0xfffffff7
		iifgroup 27392/28 return
		iifgroup & 16 == 16 meta mark set meta mark & 0xffffffef
		iifgroup & 32 == 32 meta mark set meta mark & 0xffffffdf
		iifgroup 27392/26 return
		iifgroup & 64 == 64 meta mark set meta mark & 0xffffffbf
	}

	chain choose_eni {
		type filter hook prerouting priority dstnat + 10; policy accept;
		iifgroup != 27392/25 return
		meta mark set meta mark & 0xffffff7f | 0x0000007f
		iifgroup != 27392 jump mark_eni
		ct state new jump leaving
		ct mark & 0x00000080 == 0x00000080 meta mark set meta mark & 0xffffff80 | 0x00000080
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
            "chain translated",
            "ip daddr 10.0.0.0/16 return",
        ] {
            assert_eq!(text.contains(of_snat), snat, "{of_snat} in {text}");
        }
        assert_eq!(text.contains("chain nodeport_in"), node_ports, "{text}");
        // Host ports mark connections too.
        assert!(
            text.contains("ct mark & 0x00000080 == 0x00000080"),
            "{text}"
        );
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
        let chain = listed(&netns, &["chain", "ip", "hawser", TRANSLATED]);
        assert!(chain.contains(rule), "{chain}");
    }
}

#[test]
fn another_mark_is_used_throughout_and_the_default_one_left_alone() {
    let (netns, mut nft) = lab();
    let marked = Egress {
        marks: Marks::new(0x200, 0x7f).unwrap(),
        ..egress(SourcePorts::Random)
    };
    nft.replace(&ruleset(marked)).unwrap();
    let text = listed(&netns, &["ruleset"]);
    for clause in [
        "ct mark set ct mark | 0x00000200",
        "ct mark & 0x00000200 == 0x00000200 meta mark set meta mark & 0xffffff80 | 0x00000200\n",
        "meta mark set meta mark & 0xfffffdff | 0x0000007f\n",
    ] {
        assert!(text.contains(clause), "{clause} in {text}");
    }
}

#[test]
fn local_destinations_change_alone() {
    let (netns, mut nft) = lab();
    let mut egress = egress(SourcePorts::Random);
    nft.replace(&ruleset(egress.clone())).unwrap();
    let others = || {
        ["choose_eni", "source_nat", "nodeport_in"].map(|chain| {
            run_in(
                &netns,
                &["nft", "-a", "list", "chain", "ip", "hawser", chain],
            )
        })
    };
    let before = others();
    let steps: [(&[&str], &[&str]); 6] = [
        (
            &["10.0.0.0/16", "100.64.0.0/16"],
            &["10.0.0.0/16", "100.64.0.0/16"],
        ),
        // Adjacent networks, and one within another.
        (
            &["10.0.0.0/16", "10.1.0.0/16", "10.0.3.0/24"],
            &["10.0.0.0/16", "10.1.0.0/16"],
        ),
        // One that contains the previous ones.
        (&["10.0.0.0/8"], &["10.0.0.0/8"]),
        (
            &["10.0.0.7/32", "240.0.0.0/4"],
            &["10.0.0.7", "240.0.0.0/4"],
        ),
        (&["0.0.0.0/0", "10.0.0.0/16"], &["0.0.0.0/0"]),
        (&[], &[]),
    ];
    for (new, wanted) in steps {
        egress.local = nets(new);
        nft.update_local(&egress).unwrap();
        for chain in [LEAVING, TRANSLATED] {
            let text = listed(&netns, &["chain", "ip", "hawser", chain]);
            let lines = text.lines().map(str::trim);
            let found: Vec<_> = lines.filter(|line| line.starts_with("ip daddr")).collect();
            let wanted: Vec<_> = wanted
                .iter()
                .map(|n| format!("ip daddr {n} return"))
                .collect();
            assert_eq!(found, wanted, "{text}");
        }
    }
    assert_eq!(
        others(),
        before,
        "including handles: nothing was created again"
    );
}
