//! The cluster of the test, and the scenes that are played on it. Bringing it up takes half a minute of two processors, so
//! it is brought up once. A scene that fails does not keep the others from being played.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use cluster::{cluster::Cluster, images, worker::Settings};
use lab::node::binaries;

use crate::{Outcome, daemon, node, pods, refusal, uninstall, upgrade};

/// For everything that is awaited. A loaded machine takes ten times as long as an idle one.
pub const PATIENCE: Duration = Duration::from_secs(240);
/// The same as kubectl takes it.
pub const TIMEOUT: &str = "--timeout=240s";
/// 27 pod addresses.
pub const KIND: &str = "m5.large";
pub const NODES: usize = 2;
pub const TAINT: &str = "hawser.dev/agent-not-ready";

type Scene = fn(&mut Cluster) -> Outcome;

/// In this order: each scene leaves the cluster as the next expects it.
const SCENES: [(&str, Scene); 12] = [
    ("nodes become ready by themselves", node::becomes_ready),
    ("the daemon has one capability", daemon::has_one_capability),
    ("the chart's own test passes", daemon::passes_helm_test),
    (
        "what is installed is what is rendered",
        daemon::is_as_rendered,
    ),
    ("pods run on both nodes", pods::run_on_both_nodes),
    ("pods reach each other and services", pods::reach_services),
    ("names of the VPC resolve", pods::resolve_names),
    ("a pod too many is told why", refusal::says_why),
    ("a full node says so", node::says_that_it_is_full),
    ("a daemon writes to its own node only", node::is_fenced),
    ("no pod start is lost in an upgrade", upgrade::loses_no_pod),
    ("uninstall leaves nothing behind", uninstall::leaves_nothing),
];

/// Brings the cluster up and plays every scene.
#[expect(clippy::disallowed_methods, reason = "the test tells real times")]
pub fn run() -> Outcome {
    let begun = Instant::now();
    let mut cluster = Cluster::start()?;
    let directory = cluster.lab.dir().join("images");
    let archive = images::hawser(&directory, &binaries::ipamd(), &binaries::plugin())?;
    cluster.preload(archive);
    cluster.install(&[])?;
    let settings = Settings {
        taints: vec![format!("{TAINT}=:NoSchedule")],
        ..Settings::default()
    };
    for _ in 0..NODES {
        cluster.add_node(KIND, &settings)?;
    }
    stdout::errln!(
        "{:6.1} s  the cluster is started",
        begun.elapsed().as_secs_f64()
    );
    let mut failures = Vec::new();
    for (name, scene) in SCENES {
        let outcome = catch_unwind(AssertUnwindSafe(|| scene(&mut cluster)));
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
