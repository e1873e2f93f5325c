//! A soak: two nodes live through random churn, EC2's faults and daemons that are killed, for as long as asked. At the
//! end everything is deleted, and what is left must be what an idle node holds.
//!
//! Here are the phases and the settings; what each thread does is in the files below. It judges by what it sees from
//! outside: the plugin's answers, packets, the kernel, EC2's ledger and `/proc`.

mod census;
mod churn;
mod ground;
mod memory;
mod report;
mod traffic;
mod trouble;

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
pub use ground::Tally;
use ground::{Ground, Site, now};
pub use report::Report;

/// Four ENIs of 14 pod addresses: small enough that the pool runs dry now and then.
const KIND: &str = "m5.xlarge";
/// Free addresses that a node keeps when nothing happens.
const TARGET: usize = 8;
/// Seconds; short, so that addresses come round often.
const COOLDOWN: u64 = 5;
/// Threads that place and remove pods, on each node.
const WORKERS: u64 = 3;
/// The longest that an ENI may be left over once faults have stopped (I4).
const SETTLE_LIMIT: Duration = Duration::from_secs(600);
/// Pods that each node must take once EC2 is itself again.
const FINAL_PODS: usize = 20;

/// How long, and which course of events.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub churn: Duration,
    pub seed: u64,
}

/// Lives it. To be called in a [`crate::sandbox`].
///
/// # Errors
/// If the lab fails, or the first of `say`; what the daemons do wrong is in the report.
pub fn run(settings: Settings, say: impl Fn(&str) -> io::Result<()> + Sync) -> io::Result<Report> {
    let lab = Lab::start(world(settings.seed))?;
    say("two nodes come up")?;
    let sites = [site(&lab, 0)?, site(&lab, 1)?];
    let ground = Ground::new(Duration::from_secs(COOLDOWN));
    let begun = now();
    say("churn, faults and restarts")?;
    churn(&lab, &sites, &ground, settings, &say)?;
    let churned = begun.elapsed();

    say("calm: every node must take pods again, and give everything back")?;
    churn::fill(&sites, &ground, FINAL_PODS);
    let settled = census::settle(&lab, &sites, &ground, SETTLE_LIMIT);
    let report = Report::new(&lab, &sites, ground, churned, settled);
    if !report.violations.is_empty() {
        keep_logs(&sites, settings.seed, &say)?;
    }
    Ok(report)
}

/// EC2 with delays that do not dominate, real throttling, and addresses that are usable once they are told.
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

/// All threads at work, until the time is over.
fn churn(
    lab: &Lab,
    sites: &[Site; 2],
    ground: &Ground,
    settings: Settings,
    say: &(impl Fn(&str) -> io::Result<()> + Sync),
) -> io::Result<()> {
    let Settings { churn, seed } = settings;
    let said = thread::scope(|scope| {
        for site in sites {
            for worker in 0..WORKERS {
                scope.spawn(move || churn::work(site, ground, seed, worker));
            }
        }
        scope.spawn(move || traffic::probe(ground, seed));
        scope.spawn(move || trouble::strike(&lab.sim, ground, seed));
        scope.spawn(move || memory::watch(sites, ground));
        // One node is restarted to the end. The other lives through the last two thirds in one piece: memory that
        // leaks shows only in a process that grows old.
        scope.spawn(move || trouble::restart(&lab.sim, &sites[..1], ground, seed, churn));
        scope.spawn(move || trouble::restart(&lab.sim, &sites[1..], ground, seed + 1, churn / 3));
        let begun = now();
        while !ground
            .over
            .wait(Duration::from_secs(60).min(churn.saturating_sub(begun.elapsed())))
        {
            let said = say(&ground.line(begun.elapsed()));
            if begun.elapsed() >= churn || said.is_err() {
                ground.over.ring();
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
