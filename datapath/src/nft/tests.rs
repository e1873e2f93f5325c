//! The ruleset, as printed by Debian's nft.

use std::net::Ipv4Addr;

use super::*;
use crate::netlink::Errno;
use crate::netns::Netns;
use crate::testing::{netns, run_in};

/// A namespace and a socket in it. The socket is opened there and used from here.
fn lab() -> (Netns, Nft) {
    let netns = netns();
    let nft = netns.run(Nft::open).unwrap().unwrap();
    (netns, nft)
}

/// All packets that leave the node have the same source address.
pub(super) fn translating() -> Egress {
    let snat = Snat {
        to: Ipv4Addr::new(10, 0, 0, 10),
        ports: SourcePorts::Random,
    };
    Egress {
        snat: Some(snat),
        ..Egress::default()
    }
}

fn listed(netns: &Netns) -> String {
    run_in(netns, &["nft", "list", "ruleset"])
}

const BARE: &str = "\
table ip hawser {
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
		ct mark & 0x00000080 == 0x00000080 meta mark set meta mark & 0xffffff80 | 0x00000080
	}
}
";

#[test]
fn the_ruleset_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.replace(&Ruleset::default()).unwrap();
    assert_eq!(listed(&netns), BARE);
    nft.replace(&Ruleset::default()).unwrap();
    assert_eq!(listed(&netns), BARE);
}

#[test]
fn replacing_removes_only_our_own_unwanted_objects() {
    let (netns, mut nft) = lab();
    let foreign = "table ip other { chain c { type filter hook input priority 0; }; }";
    run_in(&netns, &["nft", foreign]);
    nft.replace(&Ruleset::default()).unwrap();
    run_in(&netns, &["nft", "add chain ip hawser stray"]);
    nft.replace(&Ruleset::default()).unwrap();
    assert!(listed(&netns).ends_with(BARE));
    assert!(listed(&netns).starts_with("table ip other {"));
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_message() {
    let (netns, mut nft) = lab();
    let error = nft.update_local(&translating()).unwrap_err();
    assert!(error.is(Errno::ENOENT), "{error}");
    assert!(
        error.to_string().starts_with("nft flush chain: "),
        "{error}"
    );
    assert_eq!(listed(&netns), "");
    // The socket still works, even with pending answers.
    nft.replace(&Ruleset::default()).unwrap();
    assert_eq!(listed(&netns), BARE);
}

#[test]
fn the_source_check_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.replace(&Ruleset {
        check_source: true,
        ..Ruleset::default()
    })
    .unwrap();
    let chain = run_in(
        &netns,
        &["nft", "list", "chain", "ip", "hawser", "check_source"],
    );
    let rule = "iifgroup 27392/25 fib saddr . iif oif missing drop";
    assert!(
        chain.contains("hook prerouting priority raw; policy accept;"),
        "{chain}"
    );
    assert!(chain.contains(rule), "{chain}");
}

#[test]
fn everybodys_objects_are_listed() {
    let (netns, mut nft) = lab();
    let foreign = "table inet other { chain c { type filter hook input priority 7; accept; }; }";
    run_in(&netns, &["nft", foreign]);
    nft.replace(&Ruleset::default()).unwrap();
    let lines: Vec<_> = nft
        .list()
        .unwrap()
        .iter()
        .map(ToString::to_string)
        .collect();
    for wanted in [
        "table inet other",
        "chain inet other c hook 1 priority 7",
        "table ip hawser",
        "chain ip hawser choose_eni hook 0 priority -90",
        "chain ip hawser mark_eni",
    ] {
        assert!(
            lines.iter().any(|line| line == wanted),
            "{wanted}: {lines:#?}"
        );
    }
    let rules = |chain: &str| {
        let start = format!("rule {chain}: ");
        lines.iter().filter(|line| line.starts_with(&start)).count()
    };
    assert_eq!(rules("inet other c"), 1);
    assert!(rules("ip hawser choose_eni") >= 2, "{lines:#?}");
}
