//! Compares the self-sizing pool with two settings of the AWS VPC CNI, on three traces of pods.
//!
//! Prints the table of `docs/warm-targets.md`. `cargo run --release -p benches --bin warm [INSTANCE TYPE [DAYS]]`

mod node;
#[cfg(test)]
mod tests;
mod trace;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use node::{Outcome, run};
use planner::Config;
use trace::Trace;

/// Eight ENIs with 29 pod addresses: the smallest of its family that can hold the batch.
const INSTANCE: &str = "m5.4xlarge";
const DAYS: u32 = 14;
const SEED: u64 = 20;
/// The seed of EC2's latencies.
const LATENCIES: u64 = 7;
/// A new node is filled within one of these times, in seconds: all pods are there when the node joins, or the container
/// runtime is busy with them for half a minute.
const COLD: [f64; 3] = [0.5, 10.0, 30.0];
const COLD_PODS: u32 = 200;
const FIRST_MINUTES: Duration = Duration::from_secs(120);

fn policies() -> [(&'static str, Config); 3] {
    let five = Config {
        warm_ip_target: Some(5),
        ..Config::default()
    };
    [
        ("none set", Config::default()),
        ("WARM_ENI_TARGET=1", Config::upstream()),
        ("WARM_IP_TARGET=5", five),
    ]
}

fn main() -> ExitCode {
    stdout::ended("warm", print().map(|()| ExitCode::SUCCESS))
}

fn print() -> io::Result<()> {
    let instance = std::env::args().nth(1);
    let days = std::env::args()
        .nth(2)
        .map_or(DAYS, |text| text.parse().expect("a number of days"));
    let instance = instance.as_deref().unwrap_or(INSTANCE);
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| Trace, {days} days, {instance} | Policy | idle, mean | held, peak | EC2 calls | create/attach/modify | assign/unassign | detach/delete | pods | refused | waited | p50 | p99 | max |"
    )?;
    writeln!(
        out,
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    )?;
    for trace in Trace::ALL {
        let pods = trace.pods(days, SEED);
        for (policy, config) in policies() {
            let outcome = run(instance, config, &pods, trace::days(days), LATENCIES);
            row(&mut out, trace.name(), policy, &outcome)?;
        }
    }
    for seconds in COLD {
        let pods = trace::cold(COLD_PODS, seconds, SEED);
        let name = format!("new node, {COLD_PODS} pods in {seconds} s");
        for (policy, config) in policies() {
            let outcome = run(instance, config, &pods, FIRST_MINUTES, LATENCIES);
            row(&mut out, &name, policy, &outcome)?;
        }
    }
    Ok(())
}

fn row(out: &mut impl Write, trace: &str, policy: &str, outcome: &Outcome) -> io::Result<()> {
    let c = &outcome.calls;
    writeln!(
        out,
        "| {trace} | {policy} | {:.1} | {} | {} | {}/{}/{} | {}/{} | {}/{} | {} | {} | {} | {:.2} s | {:.2} s | {:.2} s |",
        outcome.idle,
        outcome.peak,
        outcome.total(),
        c.creates,
        c.attaches,
        c.modifies,
        c.assigns,
        c.unassigns,
        c.detaches,
        c.deletes,
        outcome.waits.len(),
        outcome.refused,
        outcome.waited(),
        outcome.wait(50).as_secs_f64(),
        outcome.wait(99).as_secs_f64(),
        outcome.wait(100).as_secs_f64(),
    )
}
