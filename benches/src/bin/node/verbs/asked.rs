//! What a pod pays for what it asks for beside its address: ADDs with and without it, alternating on one node.

use std::io;

use lab::Lab;
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use super::{WARM, fill};
use crate::{Bench, figure::Figure, sample::Sample};

/// Of each kind.
const ADDS: usize = 100;
const UNMEASURED: usize = 5;

/// A rate in each direction, and host ports that no other pod has.
fn everything(n: usize) -> Value {
    let bits = 1_000_000_000;
    let port =
        |protocol: &str| json!({ "hostPort": 8000 + n, "containerPort": 80, "protocol": protocol });
    json!({
        "portMappings": [port("tcp"), port("udp")],
        "bandwidth": {
            "ingressRate": bits, "ingressBurst": u32::MAX, "egressRate": bits, "egressBurst": u32::MAX,
        },
    })
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
        let other = node.add_pod_asking(&format!("asked{n}"), &everything(n))?;
        if n >= UNMEASURED {
            plain.took(one.added.took);
            asked.took(other.added.took);
        }
        pods.extend([one, other]);
    }
    let figure = Figure::plain(
        "ADD with host ports and bandwidth, one at a time, p50",
        asked.median(),
        "ms",
    );
    bench.report.add(figure.over(plain.median()).within(1.25));
    Ok(())
}
