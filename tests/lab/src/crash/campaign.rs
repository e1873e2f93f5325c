//! One run that lists the boundaries of a piece of work, and one more run for each of them.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    sync::Mutex,
    thread,
};

use super::{
    setup::{Restart, Setup},
    tracer::{Boundary, Trace},
};
use crate::node::plugin::{Invocation, Outcome};

/// How often a run that did not meet its boundary is repeated: threads of the daemon race, and one write may become two
/// the next time.
const TRIES: usize = 4;

/// A piece of the daemon's work.
pub trait Scenario: Sync {
    /// A new node at rest, just before the work.
    ///
    /// # Errors
    /// If it cannot be created.
    fn setup(&self) -> io::Result<Setup>;

    /// The runtime's request; nothing if the daemon works without one.
    ///
    /// # Errors
    /// If a sandbox cannot be created.
    fn work(&self, _: &mut Setup) -> io::Result<Option<Invocation>> {
        Ok(None)
    }

    /// Whether the work is complete to the last effect, seen from outside.
    fn done(&self, setup: &Setup) -> bool;

    /// Whether this boundary is tested. All are, unless a kind of work excludes it with a reason.
    fn counts(&self, _: &Boundary) -> bool {
        true
    }

    /// When the daemon is started again.
    fn restart(&self) -> Restart {
        Restart::Soon
    }

    /// Has the work done, and strikes the daemon at one of its boundaries.
    ///
    /// # Errors
    /// As [`Setup::strike`].
    fn strike(
        &self,
        setup: &mut Setup,
        at: Option<&Boundary>,
    ) -> io::Result<(Trace, Option<Outcome>)> {
        let work = self.work(setup)?;
        setup.strike(at, work, |setup| self.done(setup), self.restart())
    }

    /// Brings the node to rest and checks it.
    ///
    /// # Errors
    /// All errors.
    fn judge(&self, setup: &mut Setup, outcome: Option<Outcome>) -> io::Result<()>;
}

/// The result of a campaign.
#[derive(Debug, Default)]
pub struct Report {
    /// Every boundary of the first run, in order.
    pub listed: Vec<Boundary>,
    /// Those at which the daemon was struck and started again, with a correct result.
    pub survived: Vec<Boundary>,
    /// The errors, by boundary.
    pub failed: Vec<String>,
    /// Repeated runs, by the boundary that they did not meet.
    pub repeated: Vec<String>,
}

/// Lists the boundaries and strikes at each, with `workers` nodes at a time.
///
/// # Errors
/// If the first run, which is killed only after all work, has errors itself.
pub fn run(scenario: &impl Scenario, workers: usize) -> io::Result<Report> {
    let mut listed = once(scenario, None)?.met;
    listed.retain(|boundary| scenario.counts(boundary));
    let queue: VecDeque<_> = listed.iter().cloned().map(|at| (at, 1)).collect();
    let shared = Mutex::new((queue, Report::default()));
    thread::scope(|scope| {
        for _ in 0..workers.min(listed.len()) {
            scope.spawn(|| work_off(scenario, &shared));
        }
    });
    let (_, report) = shared.into_inner().expect("no worker panics");
    Ok(Report { listed, ..report })
}

type Shared = Mutex<(VecDeque<(Boundary, usize)>, Report)>;

fn work_off(scenario: &impl Scenario, shared: &Shared) {
    let next = || shared.lock().expect("no worker panics").0.pop_front();
    while let Some((at, tries)) = next() {
        let result = once(scenario, Some(&at));
        let (queue, report) = &mut *shared.lock().expect("no worker panics");
        match result {
            Ok(trace) if trace.struck > 0 => report.survived.push(at),
            Ok(_) if tries < TRIES => {
                report.repeated.push(at.to_string());
                queue.push_back((at, tries + 1));
            }
            Ok(_) => report
                .failed
                .push(format!("{at}: not reached in {TRIES} runs")),
            Err(error) => report.failed.push(format!("{at}: {error}")),
        }
    }
}

fn once(scenario: &impl Scenario, at: Option<&Boundary>) -> io::Result<Trace> {
    let mut setup = scenario.setup()?;
    let (trace, outcome) = scenario.strike(&mut setup, at)?;
    scenario.judge(&mut setup, outcome)?;
    Ok(trace)
}

impl Report {
    /// How many boundaries each effect has, in order of first appearance, one per line.
    #[must_use]
    pub fn table(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut order = Vec::new();
        for boundary in &self.listed {
            let count = counts.entry(&boundary.effect).or_default();
            if *count == 0 {
                order.push(boundary.effect.as_str());
            }
            *count += 1;
        }
        let line = |effect: &str| format!("  {:4} {effect}", counts[effect]);
        let lines: Vec<String> = order.into_iter().map(line).collect();
        lines.join("\n")
    }
}
