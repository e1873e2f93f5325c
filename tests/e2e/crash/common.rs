//! Shared by the kill campaigns: the number of parallel runs, the initial node, and the checks.

use std::io;

use lab::{
    crash::{
        campaign::{self, Scenario},
        setup::Setup,
    },
    node::{Pod, plugin::Outcome as Answer},
};

use serde_json::{Value, json};

use crate::suite::Outcome;

/// The number of nodes at a time: most of a run is waiting.
pub const WORKERS: usize = 8;
/// Cooldowns outlast every run, so that an address without a cooldown is detected.
pub const COOLDOWN: (&str, &str) = ("IP_COOLDOWN_PERIOD", "900");

/// Kills at every boundary of the scenario; each must have been hit and survived.
pub fn survive(name: &str, scenario: &impl Scenario, workers: usize) -> Outcome {
    let report = campaign::run(scenario, workers)?;
    stdout::errln!(
        "{name}: {} of {} boundaries survived (repeated: {:?})\n{}",
        report.survived.len(),
        report.listed.len(),
        report.repeated,
        report.table(),
    );
    assert!(
        report.failed.is_empty(),
        "{name}:\n{}",
        report.failed.join("\n\n")
    );
    let (mut listed, mut survived) = (report.listed, report.survived);
    listed.sort();
    survived.sort();
    assert_eq!(listed, survived, "{name}: 100 % is required");
    Ok(())
}

/// Creates the sandbox for the work; its pod is not yet one that must stay alive.
pub fn sandbox(setup: &Setup, id: &str) -> io::Result<Pod> {
    let (netns, path) = setup.node.sandbox(id)?;
    let added = Answer::default();
    Ok(Pod {
        id: id.to_owned(),
        netns,
        path,
        asked: Value::Null,
        added,
    })
}

/// The answer, if it is a success.
pub fn succeeded(answer: Option<Answer>) -> io::Result<Answer> {
    let answer = answer.ok_or_else(|| io::Error::other("nothing was asked"))?;
    if answer.succeeded() {
        return Ok(answer);
    }
    Err(io::Error::other(format!("{answer:?}")))
}

/// The host ports of a pod in these campaigns.
pub fn asking(id: &str) -> Value {
    let port = 8000 + u32::from(id.bytes().next_back().unwrap_or_default());
    let of =
        |protocol: &str| json!({ "hostPort": port, "containerPort": 80, "protocol": protocol });
    json!({ "portMappings": [of("tcp"), of("udp")] })
}

/// Pods named `pod0`… on a node with this many free addresses, which makes no further EC2 call.
pub fn full_node(pods: usize) -> io::Result<Setup> {
    full_node_with(pods, &[])
}

/// The same with further settings.
pub fn full_node_with(pods: usize, more: &[(&str, &str)]) -> io::Result<Setup> {
    // t3.small: the primary ENI has three addresses for pods.
    let settings = [("MAX_ENI", "1"), ("WARM_IP_TARGET", "3"), COOLDOWN];
    let mut setup = Setup::new("t3.small", &[&settings[..], more].concat())?;
    setup.await_free(3)?;
    for n in 0..pods {
        let id = format!("pod{n}");
        let pod = setup.node.add_pod_asking(&id, &asking(&id))?;
        setup.pods.push(pod);
    }
    Ok(setup)
}
