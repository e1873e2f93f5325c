//! The ruleset, as Debian's nft reads it back.

use super::*;
use crate::constants::MARK_PRIMARY;
use crate::netlink::Errno;
use crate::netns::Netns;
use crate::testing::{netns, run_in};

/// A namespace and a socket in it. The socket is opened there and used from here.
fn lab() -> (Netns, Nft) {
    let netns = netns();
    let nft = netns.run(Nft::open).unwrap().unwrap();
    (netns, nft)
}

fn listed(netns: &Netns) -> String {
    run_in(netns, &["nft", "list", "ruleset"])
}

fn ruleset(enis: &[u16]) -> Ruleset {
    Ruleset {
        enis: enis.iter().copied().collect(),
        ..Ruleset::default()
    }
}

/// nft 1.0.6 prints the mask with the bits that the "or" sets anyway.
const TWO_ENIS: &str = "\
table ip hawser {
	map eni_of_group {
		type devgroup : verdict
		elements = { 27392 : goto eni_0,
			     27393 : goto eni_1 }
	}

	chain choose_eni {
		type filter hook prerouting priority dstnat + 10; policy accept;
		iifgroup != 27392/25 return
		fib daddr type local iifgroup vmap @eni_of_group
		iifgroup vmap @eni_of_group
	}

	chain eni_0 {
		meta mark set meta mark & 0xffffff00
	}

	chain eni_1 {
		meta mark set meta mark & 0xffffff01 | 0x00000001
	}
}
";

#[test]
fn the_ruleset_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.replace(&ruleset(&[1])).unwrap();
    assert_eq!(listed(&netns), TWO_ENIS);
    nft.replace(&ruleset(&[0, 1])).unwrap();
    assert_eq!(listed(&netns), TWO_ENIS);
}

#[test]
fn replacing_takes_away_what_is_no_longer_wanted_and_nothing_of_others() {
    let (netns, mut nft) = lab();
    let foreign = "table ip other { chain c { type filter hook input priority 0; }; }";
    run_in(&netns, &["nft", foreign]);
    nft.replace(&ruleset(&[1, 2, 3])).unwrap();
    run_in(&netns, &["nft", "add chain ip hawser stray"]);
    nft.replace(&ruleset(&[1])).unwrap();
    assert!(listed(&netns).ends_with(TWO_ENIS));
    assert!(listed(&netns).starts_with("table ip other {"));
}

#[test]
fn an_eni_comes_and_goes_without_touching_the_rest() {
    let (netns, mut nft) = lab();
    nft.replace(&ruleset(&[])).unwrap();
    let empty = listed(&netns);
    let handle = || {
        run_in(
            &netns,
            &["nft", "-a", "list", "chain", "ip", "hawser", "choose_eni"],
        )
    };
    let untouched = handle();
    for _ in 0..2 {
        nft.add_eni(127, MARK_PRIMARY).unwrap();
        assert!(listed(&netns).contains("27519 : goto eni_127"));
        assert!(listed(&netns).contains("meta mark set meta mark & 0xffffff7f | 0x0000007f"));
    }
    for _ in 0..2 {
        nft.remove_eni(127).unwrap();
        assert_eq!(listed(&netns), empty);
    }
    assert_eq!(handle(), untouched);
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_message() {
    let (netns, mut nft) = lab();
    let error = nft.add_eni(1, MARK_PRIMARY).unwrap_err();
    assert!(error.is(Errno::ENOENT), "{error}");
    assert!(error.to_string().starts_with("nft add chain: "), "{error}");
    assert_eq!(listed(&netns), "");
    // The socket is none the worse for it, whatever answers are still under way.
    nft.replace(&ruleset(&[1])).unwrap();
    assert_eq!(listed(&netns), TWO_ENIS);
}

#[test]
fn as_many_enis_as_a_mark_can_name() {
    let (netns, mut nft) = lab();
    let all: Vec<u16> = (0..=MAX_ENI_INDEX).collect();
    nft.replace(&ruleset(&all)).unwrap();
    assert_eq!(listed(&netns).matches("goto eni_").count(), 128);
}

#[test]
fn the_source_check_reads_as_designed() {
    let (netns, mut nft) = lab();
    nft.replace(&Ruleset {
        check_source: true,
        ..ruleset(&[])
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
    nft.replace(&ruleset(&[1])).unwrap();
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
        "chain ip hawser eni_1",
        "set ip hawser eni_of_group",
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
