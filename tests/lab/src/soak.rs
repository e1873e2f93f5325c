//! A soak test: two nodes with random pods, EC2 faults and killed daemons, for a given time. At the end, all pods are
//! deleted, and only what an idle node holds may be left.
//!
//! This file has the phases and the settings; the files below have each thread's work. All checks are from outside: the
//! plugin's answers, packets, the kernel, EC2's ledger and `/proc`.
//!
//! May use `node`, `traffic`, `wait` and the lab. Must not know the daemon's code.

mod churn;
mod fault_injection;
mod leftovers;
mod memory;
mod report;
mod shared_state;
mod traffic;

use std::{io, thread, time::Duration};

use vpc_sim::{
    SimConfig, WorldConfig,
    latency::{Latency, Span},
};

use crate::{
    Lab,
    node::{Node, count},
    wait::eventually,
};
pub use report::Report;
pub use shared_state::Tally;
use shared_state::{SharedState, Site, now};

/// Four ENIs with 14 pod addresses: small enough that the pool sometimes runs out of addresses.
const KIND: &str = "m5.xlarge";
/// The free addresses of an idle node.
const TARGET: usize = 8;
/// Seconds; short, so that addresses are reused often.
const COOLDOWN: u64 = 5;
/// The number of threads per node that add and remove pods.
const WORKERS: u64 = 3;
/// The maximum time for which an ENI may be left over after faults have stopped (I4).
const SETTLE_LIMIT: Duration = Duration::from_secs(600);
/// The number of pods that each node must accept when EC2 works again.
const FINAL_PODS: usize = 20;

/// The duration, and the seed.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub churn: Duration,
    pub seed: u64,
}

/// Runs the soak. Call this in a [`crate::sandbox`].
///
/// # Errors
/// If the lab fails, or the first error of `say`; errors of the daemons are in the report.
pub fn run(settings: Settings, say: impl Fn(&str) -> io::Result<()> + Sync) -> io::Result<Report> {
    let lab = Lab::start(world(settings.seed))?;
    say("starting two nodes")?;
    let sites = [site(&lab, 0)?, site(&lab, 1)?];
    let shared = SharedState::new(Duration::from_secs(COOLDOWN));
    let begun = now();
    say("churn, faults and restarts")?;
    churn(&lab, &sites, &shared, settings, &say)?;
    let churned = begun.elapsed();

    say("faults end: every node must accept pods again and return everything")?;
    churn::fill(&sites, &shared, FINAL_PODS);
    let settled = leftovers::settle(&lab, &sites, &shared, SETTLE_LIMIT);
    let report = Report::new(&lab, &sites, shared, churned, settled);
    if !report.violations.is_empty() {
        keep_logs(&sites, settings.seed, &say)?;
    }
    Ok(report)
}

/// EC2 with moderate delays, real throttling, and addresses that are usable as soon as they are assigned.
fn world(seed: u64) -> SimConfig {
    let latency = Latency {
        scale: 0.1,
        usable: Span::millis(0, 0),
        ..Latency::default()
    };
    SimConfig {
        world: WorldConfig {
            seed,
            latency,
            throttling: true,
            ..WorldConfig::default()
        },
        ..SimConfig::default()
    }
}

fn site(lab: &Lab, number: usize) -> io::Result<Site> {
    let (target, cooldown) = (TARGET.to_string(), COOLDOWN.to_string());
    let settings = [
        ("WARM_IP_TARGET", target.as_str()),
        ("IP_COOLDOWN_PERIOD", cooldown.as_str()),
    ];
    let node = lab.node(KIND, &settings)?;
    if !eventually(Duration::from_secs(60), || is_warm(&node)) {
        return Err(io::Error::other(format!(
            "the pool did not fill:\n{}",
            node.log()
        )));
    }
    Site::new(number, node)
}

fn is_warm(node: &Node) -> bool {
    count(node, "free").is_ok_and(|free| free >= TARGET)
}

/// Runs all threads until the time is over.
fn churn(
    lab: &Lab,
    sites: &[Site; 2],
    shared: &SharedState,
    settings: Settings,
    say: &(impl Fn(&str) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let Settings { churn, seed } = settings;
    let said = thread::scope(|scope| {
        for site in sites {
            for worker in 0..WORKERS {
                scope.spawn(move || churn::work(site, shared, seed, worker));
            }
        }
        scope.spawn(move || traffic::probe(shared, seed));
        scope.spawn(move || fault_injection::ec2_faults(&lab.sim, shared, seed));
        scope.spawn(move || memory::watch(sites, shared));
        // One node is restarted until the end. The other one runs through the last two thirds without a restart: a
        // memory leak shows only in a long-running process.
        scope.spawn(move || fault_injection::restart(&lab.sim, &sites[..1], shared, seed, churn));
        scope.spawn(move || {
            fault_injection::restart(&lab.sim, &sites[1..], shared, seed + 1, churn / 3)
        });
        let begun = now();
        while !shared
            .over
            .wait(Duration::from_secs(60).min(churn.saturating_sub(begun.elapsed())))
        {
            let said = say(&shared.line(begun.elapsed()));
            if begun.elapsed() >= churn || said.is_err() {
                shared.over.set();
            }
            said?;
        }
        Ok(())
    });
    lab.sim.faults().clear();
    lab.sim.freeze_lists(false);
    said
}

fn keep_logs(
    sites: &[Site; 2],
    seed: u64,
    say: &impl Fn(&str) -> io::Result<()>,
) -> io::Result<()> {
    for site in sites {
        let name = format!("hawser-soak-{seed}-node-{}.log", site.number);
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, site.node().log())?;
        say(&format!("the daemon's log: {}", path.display()))?;
    }
    Ok(())
}
