//! Crash points: a node's life with ADD, DEL, growth and shrinking, in which the daemon is killed at each possible
//! point and started again. Everything between the plugin and the outside is the daemon's own: verbs, store, recovery,
//! pool, planner, executor. The kernel and EC2 are simulated, and the state file is copied as a killed process leaves
//! it.
//!
//! May use everything of the simulation but `run` and `campaign`. Must not know the fleet.

mod daemon;
mod scenario_steps;

use std::{
    fmt, io,
    net::Ipv4Addr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ipnet::Ipv4Net;
use planner::{Config, limits};
use tokio::time::Instant;

use self::scenario_steps::CHAOS;
use crate::{
    faults::Fault,
    scenario::{Load, Places, Scenario, Window},
    state::{
        Shared,
        points::Points,
        trace::{Trace, TraceDetail},
    },
};

/// The result of a campaign over all points.
#[derive(Debug, Default)]
pub struct Report {
    /// The points of a run without a kill, by name, in order.
    pub points: Vec<String>,
    /// How many of them a daemon was killed at.
    pub covered: usize,
    pub failures: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (all, covered) = (self.points.len(), self.covered);
        writeln!(
            f,
            "{covered} of {all} crash points covered, {} failures",
            self.failures.len()
        )?;
        self.failures
            .iter()
            .take(3)
            .try_for_each(|failure| writeln!(f, "{failure}"))
    }
}

/// Faults in addition to the crash, which [`enumerate_all`] combines.
const BESIDE: [&[Fault]; 10] = [
    &[],
    &[Fault::LostReply],
    &[Fault::Unsent],
    &[Fault::InternalApplied, Fault::Truncated],
    &[Fault::Throttled],
    &[Fault::Stale, Fault::Fresh],
    &[Fault::HostFails, Fault::WireFails],
    &[Fault::Partial, Fault::LinkLate],
    &[Fault::Denied],
    &[Fault::Lasting],
];

/// Kills a daemon at every point of each of these runs, and reports the results. True if there were no violations.
///
/// # Errors
/// The first error of `tell`.
pub fn enumerate_all(tell: impl Fn(String) -> io::Result<()>) -> io::Result<bool> {
    let mut sound = true;
    for faults in BESIDE {
        let report = enumerate(faults, 0, 1);
        let names: Vec<_> = faults.iter().map(|fault| fault.name()).collect();
        tell(format!("beside [{}]: {report}", names.join(", ")))?;
        sound &= report.failures.is_empty() && report.covered == report.points.len();
    }
    Ok(sound)
}

/// Kills a daemon at every `stride`th point from `first` of a run in which `faults` are active for the first minutes.
///
/// # Panics
/// If no directory for the state files can be created.
#[must_use]
pub fn enumerate(faults: &[Fault], first: usize, stride: usize) -> Report {
    let (points, failure) = live(faults, None, TraceDetail::Last);
    let mut report = Report {
        points,
        failures: failure.into_iter().collect(),
        ..Report::default()
    };
    for point in (first..report.points.len()).step_by(stride) {
        let (passed, failure) = live(faults, Some(point), TraceDetail::Last);
        if passed.get(point) == report.points.get(point) {
            report.covered += 1;
        }
        let name = &report.points[point];
        report
            .failures
            .extend(failure.map(|why| format!("killed at point {point}, {name}: {why}")));
    }
    report
}

/// One run: its points and its violations.
fn live(
    faults: &[Fault],
    kill_at: Option<usize>,
    detail: TraceDetail,
) -> (Vec<String>, Option<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    let scenario = Arc::new(scenario(faults));
    runtime.block_on(async move {
        let trace = Trace::new(detail != TraceDetail::None, detail == TraceDetail::All);
        let points = Points::new(kill_at);
        let shared = Shared::new(scenario, trace, Instant::now()).with_points(points);
        let (shared, place) = (Arc::new(shared), Place::new());
        // Biased: a violation ends the run immediately.
        tokio::select! {
            biased;
            () = shared.failed() => {}
            () = scenario_steps::run(shared.clone(), place.0.clone()) => {}
        }
        shared.with(|state, _| {
            let why = state.broken.as_ref().map(|broken| {
                let trace = state.trace.lines().join("\n    ");
                format!("{}: {}\n    {trace}", broken.rule, broken.what)
            });
            (state.points.passed().to_vec(), why)
        })
    })
}

/// Two ENIs' worth of pods on the smallest type, and one spare address: new pods make it grow, deleted ones make it
/// shrink.
fn scenario(faults: &[Fault]) -> Scenario {
    let window = |fault: &Fault| Window {
        fault: *fault,
        from: Duration::ZERO,
        to: CHAOS,
        percent: 40,
        action: "AssignPrivateIpAddresses",
    };
    Scenario {
        seed: 7,
        kind: limits::lookup("t3.small").expect("the table has this type"),
        subnet: Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 24),
        places: Places::none(),
        config: Config {
            warm_ip_target: Some(1),
            cooldown: Duration::from_secs(10),
            ..Config::default()
        },
        timeout: Duration::from_secs(5),
        lag: Duration::from_secs(5),
        leftovers: 0,
        chaos: CHAOS,
        windows: faults.iter().map(window).collect(),
        sudden: Vec::new(),
        load: Load {
            every: Duration::ZERO,
            batch: 0,
            life: Duration::ZERO,
            most: 0,
            called_off: 0,
        },
    }
}

/// A directory for this run, in memory if possible, like /run on a node.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static PLACES: AtomicU64 = AtomicU64::new(0);
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let memory = PathBuf::from("/dev/shm");
        let root = if memory.is_dir() {
            memory
        } else {
            std::env::temp_dir()
        };
        let path = root.join(format!("hawser-crash-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory can be created");
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Best effort: it is not read again.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
