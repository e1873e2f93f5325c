//! The restrictions, as printed by Debian's nft.

use crate::netlink::Family;
use crate::nft::{Nft, Ruleset};
use crate::testing::{netns, run_in};

fn listed(ruleset: &Ruleset) -> String {
    let netns = netns();
    let mut nft = netns.run(Nft::open).unwrap().unwrap();
    nft.replace(ruleset).unwrap();
    run_in(&netns, &["nft", "list", "ruleset"])
}

#[test]
fn the_metadata_service_is_blocked_for_pods_only_where_that_is_wanted() {
    let rule = "chain block_metadata {\n\t\ttype filter hook forward priority filter; policy accept;\n\
                \t\tip daddr 169.254.169.254 iifgroup 27392/25 drop\n\t}";
    let blocked = Ruleset {
        block_metadata: true,
        ..Ruleset::default()
    };
    assert!(listed(&blocked).contains(rule), "{}", listed(&blocked));
    assert!(!listed(&Ruleset::default()).contains("169.254.169.254"));
}

#[test]
fn where_pods_have_ipv6_it_is_blocked_at_its_address_there() {
    let rule = "table ip6 hawser {\n\tchain check_source {\n\t\ttype filter hook prerouting priority raw; policy accept;\n\
                \t\tiifgroup 27392/25 fib saddr . iif oif missing drop\n\t}\n\n\
                \tchain block_metadata {\n\t\ttype filter hook forward priority filter; policy accept;\n\
                \t\tip6 daddr fd00:ec2::254 iifgroup 27392/25 drop\n\t}\n}";
    let blocked = Ruleset {
        block_metadata: true,
        pods: Family::V6,
        ..Ruleset::default()
    };
    assert!(listed(&blocked).contains(rule), "{}", listed(&blocked));
}

#[test]
fn ipv6_packets_of_ipv4_pods_are_dropped() {
    let guarded = Ruleset {
        has_ipv6: true,
        ..Ruleset::default()
    };
    let table = "table ip6 hawser {\n\tchain no_ipv6 {\n\
                 \t\ttype filter hook prerouting priority raw; policy accept;\n\
                 \t\tiifgroup 27392/25 drop\n\t}\n}";
    assert!(listed(&guarded).contains(table), "{}", listed(&guarded));
    assert!(!listed(&Ruleset::default()).contains("ip6"));
}

#[test]
fn a_lost_guard_is_noticed() {
    let netns = netns();
    let mut nft = netns.run(Nft::open).unwrap().unwrap();
    let guarded = Ruleset {
        has_ipv6: true,
        ..Ruleset::default()
    };
    nft.replace(&guarded).unwrap();
    let before = nft.fingerprint().unwrap();
    run_in(&netns, &["nft", "flush", "table", "ip6", "hawser"]);
    assert_ne!(nft.fingerprint().unwrap(), before);
    run_in(&netns, &["nft", "delete", "table", "ip6", "hawser"]);
    assert_ne!(nft.fingerprint().unwrap(), before);
}
