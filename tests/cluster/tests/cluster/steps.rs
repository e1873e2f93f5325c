//! The steps of the test, on one cluster: its start takes half a minute on two processors. A step that fails does not
//! stop the others.
//!
//! May use `hawser`, `pods`, `streams` and `setup`. Must not know the other tests.

mod daemon;
mod join;
mod life;
mod node;
mod refusal;
mod uninstall;
mod upgrade;

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use cluster::{cluster::Cluster, images, worker::Settings};
use lab::node::binaries;

use crate::{
    Outcome, pods,
    setup::{KIND, NODES, TAINT},
};

type Step = fn(&mut Cluster) -> Outcome;

/// In this order: each step leaves the cluster in the state that the next one expects.
const STEPS: [(&str, Step); 18] = [
    ("nodes become ready by themselves", node::becomes_ready),
    ("the daemon has one capability", daemon::has_one_capability),
    ("the chart's own test passes", daemon::passes_helm_test),
    (
        "nothing with the port of the AWS VPC CNI runs beside it",
        daemon::keeps_others_off,
    ),
    (
        "what is installed is what is rendered",
        daemon::is_as_rendered,
    ),
    ("pods run on both nodes", pods::run_on_both_nodes),
    ("pods reach each other and services", pods::reach_services),
    ("names of the VPC resolve", pods::resolve_names),
    (
        "an image for another architecture says so",
        refusal::names_a_foreign_image,
    ),
    ("a pod too many is told why", refusal::says_why),
    ("a full node says so", node::says_that_it_is_full),
    ("a daemon writes to its own node only", node::is_fenced),
    ("no pod start is lost in an upgrade", upgrade::loses_no_pod),
    ("a third node takes a burst of pods", join::takes_a_burst),
    (
        "pods outlive restarts and an outage",
        life::survives_restarts,
    ),
    ("a node leaves without a trace", join::leaves),
    (
        "reboots bring all pods back",
        life::comes_back_from_a_reboot,
    ),
    ("uninstall leaves nothing behind", uninstall::leaves_nothing),
];

/// Starts the cluster and runs every step.
#[expect(clippy::disallowed_methods, reason = "the test tells real times")]
pub fn run() -> Outcome {
    let begun = Instant::now();
    let mut cluster = Cluster::start()?;
    let directory = cluster.lab.dir().join("images");
    let archive = images::hawser(&directory, &binaries::ipamd(), &binaries::plugin())?;
    cluster.preload(archive);
    cluster.install(&[])?;
    for number in 0..NODES {
        let settings = Settings {
            taints: vec![format!("{TAINT}=:NoSchedule")],
            proxy: number != node::WITHOUT_PROXY,
            ..Settings::default()
        };
        cluster.add_node(KIND, &settings)?;
    }
    stdout::errln!(
        "{:6.1} s  the cluster is started",
        begun.elapsed().as_secs_f64()
    );
    let mut failures = Vec::new();
    for (name, step) in STEPS {
        let outcome = catch_unwind(AssertUnwindSafe(|| step(&mut cluster)));
        let outcome = outcome.unwrap_or_else(|panic| Err(panicked(&*panic).into()));
        let time = begun.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => stdout::errln!("{time:6.1} s  {name}"),
            Err(failed) => {
                let why = failed.message().unwrap_or_default().to_owned();
                stdout::errln!("{time:6.1} s  {name}: FAILED\n{why}");
                failures.push(format!("{name}: {why}"));
            }
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(failures.join("\n\n").into())
}

/// What an assertion said.
fn panicked(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_default()
}
