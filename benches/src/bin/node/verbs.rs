//! ADD and DEL one at a time, from the start of the plugin's process to its end; only the plugin's start; and the
//! daemon's part of an ADD. The folder has what pods pay for what they ask for.
//!
//! May use the other parts of the benchmark. Must not know the daemon's own types.

mod asked;

use std::{io, os::fd::AsFd, thread, time::Duration};

use lab::{
    Lab,
    node::{Node, count},
    wait::eventually,
};
use serde::Deserialize;
use vpc_sim::SimConfig;

use crate::{Bench, figure::Figure, floor::Floors, sample::Sample};

const ROUNDS: usize = 10;
/// The number of pods of a round.
const PODS: usize = 20;
/// All addresses of the node: there is one for every pod of every round, and the pool does not need to grow.
const WARM: &str = "232";
/// The prefix of its sandboxes' ids.
const NAME: &str = "verbs";

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.4xlarge", &[("WARM_IP_TARGET", WARM)])?;
    fill(&node)?;
    let (mut floors, mut add, mut del, mut start) = (
        Floors::default(),
        Sample::default(),
        Sample::default(),
        Sample::default(),
    );
    // Namespaces of deleted sandboxes are kept until the end, for the same reason as the floor's.
    let mut ended = Vec::new();
    for round in 0..ROUNDS {
        floors.gather(&bench.floor, PODS)?;
        for _ in 0..PODS {
            let version = node.invocation("VERSION", "", None).run(node.netns())?;
            start.took(version.took);
        }
        let pods: Vec<_> = (0..PODS)
            .map(|n| node.add_pod(&format!("{NAME}{round}n{n}")))
            .collect::<io::Result<_>>()?;
        for pod in pods {
            add.took(pod.added.took);
            ended.push(pod.netns.as_fd().try_clone_to_owned()?);
            del.took(node.delete_pod(pod)?.took);
        }
        // Until the links of deleted pods are removed.
        thread::sleep(Duration::from_millis(200));
    }
    let exec = floors.exec.median();
    let report = &mut bench.report;
    let bare = floors.bare.median();
    report.add(Figure::plain("start of a program without a C library, p50", bare, "ms").over(exec));
    report.add(
        Figure::plain("plugin start (VERSION), p50", start.median(), "ms")
            .over(exec)
            .within(1.2),
    );
    report.add(
        Figure::plain("ADD, one at a time, p50", add.median(), "ms")
            .over(floors.add())
            .within(1.3),
    );
    report.add(
        Figure::plain("ADD, one at a time, p99", add.percentile(99), "ms")
            .over(floors.add())
            .within(3.0),
    );
    report.add(
        Figure::plain("DEL, one at a time, p50", del.median(), "ms")
            .over(exec)
            .within(1.7),
    );
    stages(bench, &node, &floors)?;
    drop((node, lab));
    asked::measure(bench)
}

/// Waits until the pool is full.
fn fill(node: &Node) -> io::Result<()> {
    let warm = WARM.parse().unwrap_or(0);
    let free = || count(node, "free").is_ok_and(|free| free >= warm);
    if !eventually(Duration::from_secs(60), free) {
        return Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )));
    }
    Ok(())
}

/// Medians of the daemon's own measurements of each request; wiring is compared with the plain steps.
fn stages(bench: &mut Bench, node: &Node, floors: &Floors) -> io::Result<()> {
    let path = format!("/v1/trace?sandbox={NAME}");
    let answer = lab::http::get(node.netns(), 61679, &path, &[])?;
    let taken: Vec<Taken> = serde_json::from_str(&answer.body)?;
    for (verb, what, name) in [
        ("add", "turn", "its turn"),
        ("add", "address", "the address"),
        ("add", "wire", "wiring"),
        ("add", "commit", "the record"),
        ("add", "ok", "from request to answer"),
        ("del", "unwire", "the route"),
        ("del", "commit", "the record"),
        ("del", "ok", "from request to answer"),
    ] {
        let verb_in_capitals = verb.to_uppercase();
        let name = format!("daemon, {verb_in_capitals}: {name}, p50");
        let figure = Figure::plain(name, median(&taken, verb, what), "ms");
        let wired = verb == "add" && matches!(what, "wire" | "ok");
        bench.report.add(if wired {
            figure.over(floors.whole.median())
        } else {
            figure
        });
    }
    Ok(())
}

/// One stage of one request, from introspection.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    verb: String,
    what: String,
    took_ms: f64,
}

fn median(taken: &[Taken], verb: &str, what: &str) -> f64 {
    let mut sample = Sample::default();
    let same = |stage: &&Taken| stage.verb == verb && stage.what == what;
    sample.extend(taken.iter().filter(same).map(|stage| stage.took_ms));
    sample.median()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_of_its_own_verb_and_stage() {
        let text = r#"[
            {"sandbox": "a", "verb": "add", "what": "wire", "tookMs": 1.0, "ageMs": 3},
            {"sandbox": "a", "verb": "del", "what": "wire", "tookMs": 9.0, "ageMs": 2},
            {"sandbox": "b", "verb": "add", "what": "wire", "tookMs": 3.0, "ageMs": 1},
            {"sandbox": "c", "verb": "add", "what": "wire", "tookMs": 2.0, "ageMs": 0}]"#;
        let taken: Vec<Taken> = serde_json::from_str(text).unwrap();
        assert_eq!(median(&taken, "add", "wire").to_string(), "2");
        assert!(median(&taken, "del", "commit").is_nan());
    }
}
