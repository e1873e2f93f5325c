//! What others remove from the network of an IPv6 node is restored under traffic too; objects of others stay.

use std::io;

use lab::{node::count, wait::eventually};
use serde_json::json;

use crate::{
    suite::{Outcome, trials},
    support::{
        ipv6::{SIX, start},
        repair::{DamagedNode, LIMIT, one_by_one},
    },
};

trials!(
    fault_43_removed_objects_are_restored,
    fault_43_everything_at_once_is_restored,
    fault_43_objects_of_others_stay,
    a_restart_changes_nothing,
);

/// What an operator would check. The kernel's own link-local addresses depend on a link's carrier.
const STATE: &str = "ip -6 rule | sort; { ip -6 route show table all; ip -o -6 addr; } | grep -v 'fe80::\\|ff00::' | sort; \
    ip -6 neigh show nud permanent | sort; nft list table ip6 hawser; nft list table ip6 hawser_ports | sort; \
    ip -o link | sed 's/ qlen [0-9]*//'; cd /proc/sys/net; \
    for d in ipv6/conf/*; do echo $d $(cat $d/disable_ipv6 $d/forwarding $d/accept_ra $d/addr_gen_mode); done; \
    for d in ipv4/conf/e*; do echo $d $(cat $d/rp_filter $d/accept_redirects); done";

/// Each way to damage a node, and the kind of object that is repaired.
const DAMAGE: [(&str, &str); 12] = [
    ("rule", "ip -6 rule flush protocol 107"),
    ("route", "ip -6 route flush table 27392"),
    ("nftables", "nft delete table ip6 hawser"),
    ("nftables", "nft flush ruleset"),
    ("nftables", "nft delete table ip6 hawser_ports"),
    ("nftables", "nft flush table ip6 hawser_ports"),
    ("setting", "echo 0 > /proc/sys/net/ipv6/conf/all/forwarding"),
    (
        "setting",
        "for d in /proc/sys/net/ipv6/conf/eni*; do echo 1 > $d/disable_ipv6; done",
    ),
    (
        "setting",
        "for d in /proc/sys/net/ipv4/conf/eni*; do echo 0 > $d/rp_filter; done",
    ),
    (
        "neighbour",
        "for l in $(ip -o link | sed -n 's/^[0-9]*: \\(eni[^@]*\\)@.*/\\1/p'); do ip neigh flush dev $l nud permanent; done",
    ),
    (
        "link",
        "for l in $(ip -o link | sed -n 's/^[0-9]*: \\(eni[^@]*\\)@.*/\\1/p'); do ip link set $l group 0; done",
    ),
    (
        "link",
        "for l in $(ip -o link | sed -n 's/^[0-9]*: \\(eni[^@]*\\)@.*/\\1/p'); do ip link set $l down; done",
    ),
];

fn set() -> io::Result<DamagedNode> {
    let lab = start()?;
    let (node, elsewhere) = (lab.node("t3.small", &SIX)?, lab.node("t3.small", &SIX)?);
    let target = elsewhere.add_pod("target")?;
    let asking = |n| json!({ "portMappings": [{ "hostPort": 8000 + n, "containerPort": 80, "protocol": "tcp" }] });
    let pods = (0..2).map(|n| node.add_pod_asking(&format!("pod{n}"), &asking(n)));
    let pods = pods.collect::<io::Result<Vec<_>>>()?;
    let damaged = DamagedNode {
        lab,
        node,
        pods,
        talking: [0, 1],
        _elsewhere: elsewhere,
        target,
        state: STATE,
    };
    damaged.talks()?;
    Ok(damaged)
}

fn fault_43_removed_objects_are_restored() -> Outcome {
    one_by_one(&set()?, &DAMAGE)
}

fn fault_43_everything_at_once_is_restored() -> Outcome {
    let damaged = set()?;
    let right = damaged.describe()?;
    let all = DAMAGE.iter().map(|(_, how)| *how);
    let all: Vec<&str> = all
        .filter(|how| !how.starts_with("nft delete") && !how.starts_with("nft flush table"))
        .collect();
    let took = damaged.damage(&all.join("; "), &right)?;
    stdout::errln!("all of it: whole after {took:?}");
    Ok(())
}

fn fault_43_objects_of_others_stay() -> Outcome {
    let damaged = set()?;
    let theirs = "ip -6 rule add pref 512 to 2001:db8::77 lookup main; \
                  ip -6 rule add pref 600 to 2001:db8::78 lookup main protocol static; \
                  ip -6 route add 2001:db8:7::/48 dev eth0 table 27392; nft add table ip6 theirs";
    damaged.node.shell(theirs)?;
    let right = damaged.describe()?;
    damaged.damage(
        "ip -6 rule flush protocol 107; ip -6 route flush table 27392 proto 107; nft delete table ip6 hawser",
        &right,
    )?;
    let tables = damaged.node.shell("nft list tables ip6")?;
    assert!(tables.contains("table ip6 theirs"), "{tables}");
    Ok(())
}

fn a_restart_changes_nothing() -> Outcome {
    let mut damaged = set()?;
    let right = damaged.describe()?;
    assert!(damaged.node.stop_daemon()?);
    damaged.node.start_daemon(&damaged.lab.sim.ec2_endpoint())?;
    let known = || count(&damaged.node, "assigned").is_ok_and(|n| n == 2);
    assert!(eventually(LIMIT, known), "{}", damaged.node.log());
    assert_eq!(damaged.describe()?, right);
    let metrics = damaged.node.metrics()?;
    assert!(!metrics.contains("hawser_repairs_total{"), "{metrics}");
    Ok(())
}
