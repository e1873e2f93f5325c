//! 250 ADDs at once, as after a node's reboot: all must be answered; measures the total time and the slowest one.

use std::{io, path::PathBuf, time::Duration};

use datapath::netns::Netns;
use lab::{
    Lab,
    node::{Node, count},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    Bench,
    concurrent::at_once,
    figure::Figure,
    floor::Floors,
    sample::{Sample, millis},
};

const PODS: usize = 250;
/// The number of storms, each with its floor; the median is reported.
const ROUNDS: usize = 3;

/// See the module.
///
/// # Errors
/// If the lab fails, or an ADD.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node(
        "m5.24xlarge",
        &[("WARM_IP_TARGET", "260"), ("IP_COOLDOWN_PERIOD", "1")],
    )?;
    let (mut wall, mut floor) = (Sample::default(), Sample::default());
    let (mut slowest, mut down) = (Sample::default(), Sample::default());
    let mut floors = Vec::new();
    // Namespaces of deleted sandboxes are kept until the end, for the same reason as the floor's.
    let mut ended = Vec::new();
    for round in 0..ROUNDS {
        warm(&node)?;
        floors.push(Floors::default());
        let floors = floors.last_mut().expect("one was pushed");
        floors.gather(&bench.floor, 1)?;
        let least = 250.0 * floors.whole.median() + millis(bench.floor.exec_at_once(PODS)?);
        let sandboxes: Vec<_> = (0..PODS)
            .map(|n| {
                let id = format!("s{round}n{n}");
                node.sandbox(&id).map(|(netns, path)| (id, netns, path))
            })
            .collect::<io::Result<_>>()?;
        let (took, adds) = storm(&node, "ADD", &sandboxes)?;
        wall.push(took);
        floor.push(least);
        slowest.push(adds.percentile(99));
        let (took, _) = storm(&node, "DEL", &sandboxes)?;
        down.push(took);
        for (_, _, path) in &sandboxes {
            Netns::unbind(path)?;
        }
        ended.push(sandboxes);
    }
    let report = &mut bench.report;
    report.add(
        Figure::plain("250 ADDs at once, wall", wall.median(), "ms")
            .over(floor.median())
            .within(1.2),
    );
    report.add(Figure::plain("250 ADDs at once, p99", slowest.median(), "ms").within(1000.0));
    report.add(Figure::plain("250 DELs at once, wall", down.median(), "ms"));
    Ok(())
}

fn warm(node: &Node) -> io::Result<()> {
    let free = || count(node, "free").is_ok_and(|free| free >= PODS);
    if eventually(Duration::from_secs(60), free) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )))
    }
}

/// The total time in milliseconds, and the times of the single calls.
fn storm(
    node: &Node,
    verb: &str,
    sandboxes: &[(String, Netns, PathBuf)],
) -> io::Result<(f64, Sample)> {
    let works = sandboxes.iter().map(|(id, _, path)| {
        let invocation = node.invocation(verb, id, Some(path));
        move || invocation.run(node.netns())
    });
    let (took, outcomes) = at_once(works.collect())?;
    let mut sample = Sample::default();
    for outcome in outcomes {
        if !outcome.succeeded() {
            return Err(io::Error::other(format!(
                "{verb} failed: {outcome:?}\n{}",
                node.log()
            )));
        }
        sample.took(outcome.took);
    }
    Ok((millis(took), sample))
}
