//! How many pods a node can hold, and how it refuses more.

use lab::{Lab, node::count};
use proto::refusal::Reason;
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::refusals::expect_refusal,
};

trials!(
    an_add_beyond_the_instances_limit_is_refused_with_the_figure,
    max_eni_lowers_the_limit
);

fn an_add_beyond_the_instances_limit_is_refused_with_the_figure() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    for n in 0..9 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let (_netns, path) = node.sandbox("one-too-many")?;
    let refused = node
        .invocation("ADD", "one-too-many", Some(&path))
        .run(node.netns())?;
    let words = [
        "all 9 pod addresses are in use",
        "3 ENIs × (4 − 1)",
        "when another pod is deleted",
    ];
    expect_refusal(&node, &refused, Reason::PodLimit, &words)?;
    assert_eq!(count(&node, "assigned")?, 9);
    Ok(())
}

fn max_eni_lowers_the_limit() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("MAX_ENI", "1")])?;
    for n in 0..3 {
        node.add_pod(&format!("pod{n}"))?;
    }
    let (_netns, path) = node.sandbox("one-too-many")?;
    let refused = node
        .invocation("ADD", "one-too-many", Some(&path))
        .run(node.netns())?;
    let words = ["all 3 pod addresses are in use", "MAX_ENI"];
    expect_refusal(&node, &refused, Reason::PodLimit, &words)
}
