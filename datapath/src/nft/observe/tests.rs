//! Every change of our table is detected, and changes of other tables are not.

use super::*;
use crate::netns::Netns;
use crate::nft::Ruleset;
use crate::nft::tests::translating;
use crate::testing::{netns, run_in};

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
