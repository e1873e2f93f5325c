//! What a pod pays for what it asks for beside its address: ADDs with and without it, alternating on one node.

use std::io;

use lab::{
    Lab,
    node::{Node, Pod},
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use super::{WARM, fill};
use crate::{Bench, figure::Figure, sample::Sample};

/// Of each kind.
const ADDS: usize = 100;
const UNMEASURED: usize = 5;

/// A rate in each direction.
fn everything() -> Value {
    let bits = 1_000_000_000;
    json!({ "bandwidth": {
        "ingressRate": bits, "ingressBurst": u32::MAX, "egressRate": bits, "egressBurst": u32::MAX,
    } })
}

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.4xlarge", &[("WARM_IP_TARGET", WARM)])?;
    fill(&node)?;
    let (mut plain, mut asked) = (Sample::default(), Sample::default());
    let mut pods = Vec::new();
    for n in 0..UNMEASURED + ADDS {
        let one = node.add_pod(&format!("plain{n}"))?;
        let other = add(&node, &format!("asked{n}"))?;
        if n >= UNMEASURED {
            plain.took(one.added.took);
            asked.took(other.added.took);
        }
        pods.extend([one, other]);
    }
    let figure = Figure::plain(
        "ADD with bandwidth, one at a time, p50",
        asked.median(),
        "ms",
    );
    bench.report.add(figure.over(plain.median()).within(1.25));
    Ok(())
}

fn add(node: &Node, id: &str) -> io::Result<Pod> {
    let (netns, path) = node.sandbox(id)?;
    let add = node.invocation("ADD", id, Some(&path));
    let added = add.conf("runtimeConfig", everything()).run(node.netns())?;
    match added.succeeded() {
        true => Ok(Pod {
            id: id.to_owned(),
            netns,
            path,
            added,
        }),
        false => Err(io::Error::other(format!("{added:?}\n{}", node.log()))),
    }
}
