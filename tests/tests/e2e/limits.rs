//! What a node can hold, and how it says no.

use e2e::lab::{Lab, count};
use vpc_sim::SimConfig;

use crate::{Outcome, trials};

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
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    let text = refused.error_text();
    assert!(
        text.contains("all 9 pod addresses") && text.contains("3 ENIs × (4 − 1)"),
        "{text}"
    );
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
    let text = refused.error_text();
    assert!(
        text.contains("all 3 pod addresses") && text.contains("MAX_ENI"),
        "{text}"
    );
    Ok(())
}
