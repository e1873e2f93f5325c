//! From the start of a daemon whose predecessor was killed to its first ADD, without EC2 and instance metadata.

use std::{io, time::Duration};

use lab::{
    Lab,
    node::{Node, count},
    wait::eventually,
};
use vpc_sim::{Action, Fault, FaultKind, SimConfig, imds::ImdsFault};

use crate::{
    Bench,
    figure::Figure,
    sample::{Sample, now},
};

const ROUNDS: usize = 15;
/// Live pods, whose records are read at each start.
const PODS: usize = 700;
const BUDGET: f64 = 50.0;

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "0"), ("MINIMUM_IP_TARGET", "735")];
    let mut node = lab.node("m5.24xlarge", &settings)?;
    let warm = || count(&node, "free").is_ok_and(|free| free >= PODS + ROUNDS);
    if !eventually(Duration::from_secs(120), warm) {
        return Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )));
    }
    for n in 0..PODS {
        node.add_pod(&format!("live{n}"))?;
    }
    silence(&lab);
    let mut sample = Sample::default();
    for round in 0..ROUNDS {
        sample.took(once(&lab, &mut node, round)?);
    }
    let name = format!("restart to first ADD, {PODS} pods, EC2 and metadata dead");
    bench
        .report
        .add(Figure::plain(name, sample.median(), "ms").within(BUDGET));
    Ok(())
}

/// No more calls are answered.
fn silence(lab: &Lab) {
    lab.sim.faults().push(Fault {
        action: Action::DescribeNetworkInterfaces,
        times: u32::MAX,
        kind: FaultKind::Error {
            code: "InternalError".to_owned(),
        },
    });
    lab.sim.imds().push(ImdsFault {
        path: "/latest/".to_owned(),
        times: u32::MAX,
        delay: Duration::ZERO,
        status: Some(503),
    });
}

fn once(lab: &Lab, node: &mut Node, round: usize) -> io::Result<Duration> {
    node.kill_daemon()?;
    let id = format!("fresh{round}");
    let (_netns, path) = node.sandbox(&id)?;
    let add = node.invocation("ADD", &id, Some(&path));
    let begun = now();
    node.spawn_daemon(&lab.sim.ec2_endpoint())?;
    let outcome = add.run(node.netns())?;
    let took = begun.elapsed();
    if outcome.succeeded() {
        Ok(took)
    } else {
        Err(io::Error::other(format!(
            "ADD failed: {outcome:?}\n{}",
            node.log()
        )))
    }
}
