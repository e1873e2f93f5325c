//! ADD and DEL one at a time, from the start of the plugin's process to its end; the plugin's start alone; and the
//! daemon's share of an ADD.

use std::{io, thread};

use e2e::{
    lab::{Lab, count, eventually},
    node::Node,
};
use vpc_sim::SimConfig;

use crate::{Bench, figure::Figure, floor::Floors, sample::Sample};

const ROUNDS: usize = 10;
/// Pods of a round, fewer than are warm.
const PODS: usize = 20;
const WARM: &str = "60";

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    // No rest for addresses: this part measures the path, not the pool.
    let node = lab.node(
        "m5.4xlarge",
        &[("WARM_IP_TARGET", WARM), ("IP_COOLDOWN_PERIOD", "1")],
    )?;
    settle(&node)?;
    let (mut floors, mut add, mut del, mut start) = (
        Floors::default(),
        Sample::default(),
        Sample::default(),
        Sample::default(),
    );
    for round in 0..ROUNDS {
        floors.gather(&bench.floor, PODS)?;
        for _ in 0..PODS {
            let version = node.invocation("VERSION", "", None).run(node.netns())?;
            start.took(version.took);
        }
        let pods: Vec<_> = (0..PODS)
            .map(|n| node.add_pod(&format!("r{round}n{n}")))
            .collect::<io::Result<_>>()?;
        for pod in pods {
            add.took(pod.added.took);
            del.took(node.delete_pod(pod)?.took);
        }
        settle(&node)?;
    }
    let exec = floors.exec.median();
    let report = &mut bench.report;
    report.add(
        Figure::plain("plugin start (VERSION), p50", start.median(), "ms")
            .over(exec)
            .within(1.2),
    );
    report.add(
        Figure::plain("ADD, one at a time, p50", add.median(), "ms")
            .over(floors.add())
            .within(1.5),
    );
    report.add(
        Figure::plain("ADD, one at a time, p99", add.percentile(99), "ms")
            .over(floors.add())
            .within(5.0),
    );
    report.add(
        Figure::plain("DEL, one at a time, p50", del.median(), "ms")
            .over(exec)
            .within(2.0),
    );
    stages(bench, &node, &floors)
}

/// Waits until the pool is warm again and what DEL left behind is gone.
fn settle(node: &Node) -> io::Result<()> {
    let warm = WARM.parse().unwrap_or(0);
    let free = || count(node, "free").is_ok_and(|free| free >= warm);
    if !eventually(std::time::Duration::from_secs(60), free) {
        return Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )));
    }
    thread::sleep(std::time::Duration::from_millis(200));
    Ok(())
}

/// The means that the daemon's own histograms show; wiring stands beside the bare steps.
fn stages(bench: &mut Bench, node: &Node, floors: &Floors) -> io::Result<()> {
    let text = metrics(node)?;
    for (verb, stage) in [
        ("add", "turn"),
        ("add", "address"),
        ("add", "wire"),
        ("add", "commit"),
        ("del", "turn"),
        ("del", "unwire"),
        ("del", "commit"),
    ] {
        let label = format!("stage=\"{stage}\",verb=\"{verb}\"");
        if let Some(mean) = mean(&text, "hawser_stage_seconds", &label) {
            let figure = Figure::plain(format!("daemon, {verb}: {stage}, mean"), mean, "ms");
            bench.report.add(if stage == "wire" {
                figure.over(floors.whole.median())
            } else {
                figure
            });
        }
    }
    if let Some(mean) = mean(&text, "hawser_request_seconds", "verb=\"add\"") {
        let figure = Figure::plain("daemon, add: from request to answer, mean", mean, "ms");
        bench.report.add(figure.over(floors.whole.median()));
    }
    Ok(())
}

/// Milliseconds: a histogram's sum over its count, of the series with this label.
fn mean(text: &str, name: &str, label: &str) -> Option<f64> {
    let read = |suffix: &str| {
        let line = text.lines().find(|line| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(suffix))
                && line.contains(label)
        })?;
        line.rsplit(' ').next()?.parse::<f64>().ok()
    };
    Some(read("_sum")? / read("_count")? * 1e3)
}

fn metrics(node: &Node) -> io::Result<String> {
    Ok(e2e::http::get(node.netns(), 61678, "/metrics", &[])?.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_is_read_from_the_series_with_the_label() {
        let text = "x_seconds_sum{verb=\"del\"} 9\nx_seconds_count{verb=\"del\"} 1\nx_seconds_sum{verb=\"add\"} 0.5\nx_seconds_count{verb=\"add\"} 100\n";
        assert_eq!(
            mean(text, "x_seconds", "verb=\"add\"").map(|n| n.to_string()),
            Some("5".to_owned())
        );
        assert_eq!(mean(text, "y_seconds", ""), None);
    }
}
