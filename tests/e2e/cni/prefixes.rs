//! Prefix delegation with the real daemon: sixteen addresses per slot, and a node whose mode changes while pods run.

use std::time::Duration;

use lab::{
    Lab,
    node::{Node, Pod, count},
    traffic::ping::unanswered,
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    pods_of_a_prefix_reach_each_other_and_the_next_prefix_is_warm,
    a_node_whose_mode_is_changed_keeps_its_pods,
);

const SOON: Duration = Duration::from_secs(20);
const ON: [(&str, &str); 3] = [
    ("ENABLE_PREFIX_DELEGATION", "true"),
    ("WARM_PREFIX_TARGET", "1"),
    ("IP_COOLDOWN_PERIOD", "1"),
];

/// Pod addresses that EC2 counts for the node: prefixes, and single addresses.
fn held(lab: &Lab) -> (usize, usize) {
    let world = lab.sim.world();
    let prefixes = world.interfaces().map(|eni| eni.ipv4_prefixes.len()).sum();
    let singles = world.interfaces().map(|eni| eni.ipv4.len() - 1).sum();
    (prefixes, singles)
}

fn pods(node: &Node, range: std::ops::Range<usize>) -> std::io::Result<Vec<Pod>> {
    range.map(|n| node.add_pod(&format!("pod{n}"))).collect()
}

fn pods_of_a_prefix_reach_each_other_and_the_next_prefix_is_warm() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.large", &ON)?;
    let warm = || count(&node, "free").is_ok_and(|free| free >= 16);
    assert!(eventually(SOON, warm), "{}", node.log());
    assert_eq!(held(&lab), (1, 0), "one prefix, and no single address");
    let placed = pods(&node, 0..20)?;
    assert!(
        eventually(SOON, || held(&lab) == (3, 0)),
        "20 pods take two prefixes, and one is spare: {:?}\n{}",
        held(&lab),
        node.log()
    );
    // The first address of each sixteen is used too, because EC2 routes a prefix as a whole.
    let few: Vec<Pod> = placed.into_iter().step_by(5).collect();
    assert_eq!(unanswered(&few, &few)?, []);
    Ok(())
}

fn a_node_whose_mode_is_changed_keeps_its_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &ON)?;
    let old = pods(&node, 0..3)?;

    node.set("ENABLE_PREFIX_DELEGATION", "false");
    node.set("WARM_IP_TARGET", "2");
    node.stop_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let new = pods(&node, 3..5)?;
    let all: Vec<Pod> = old.into_iter().chain(new).collect();
    assert_eq!(unanswered(&all, &all)?, [], "old pods and new");
    assert!(
        held(&lab).0 >= 1,
        "the prefix stays for as long as pods use it"
    );
    for pod in all {
        node.delete_pod(pod)?;
    }
    // A surplus is returned after half a minute.
    assert!(
        eventually(Duration::from_secs(90), || held(&lab).0 == 0),
        "an unused prefix must be returned: {:?}\n{}",
        held(&lab),
        node.log()
    );
    let fresh = pods(&node, 10..12)?;
    assert_eq!(unanswered(&fresh, &fresh)?, []);

    node.set("ENABLE_PREFIX_DELEGATION", "true");
    node.set("WARM_IP_TARGET", "");
    node.stop_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(
        eventually(SOON, || held(&lab).0 >= 1),
        "and back again\n{}",
        node.log()
    );
    let late = pods(&node, 20..22)?;
    let both: Vec<Pod> = fresh.into_iter().chain(late).collect();
    assert_eq!(unanswered(&both, &both)?, []);
    Ok(())
}
