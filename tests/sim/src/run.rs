//! Deterministic simulation: the daemon's own pool, planner and executor with EC2's world, in virtual time.
//!
//! One seed is one life of one node: its type, subnet and configuration, its pods, and all faults. During the run, the
//! [`oracle`] checks every grant and every call. Then the faults stop, and the final conditions are checked: waiting
//! pods are served, there are no leaks, and finally no calls. The same seed always gives the same run. One thread, no
//! real clock, nothing iterated in hash order.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use planner::{Event, Snapshot};
use tokio::time::Instant;

use crate::{
    faults::{Fault, Tally},
    node::Node,
    oracle,
    scenario::{BOOT, Change, Mode, Scenario},
    state::{Shared, Violation, trace::Trace},
    surroundings::pods::{Pods, Wish, until},
};

pub use crate::state::trace::TraceDetail;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// The same for every run of the seed.
    pub hash: u64,
    pub tally: Tally,
    pub calls: u64,
    pub peak: usize,
    pub failure: Option<Failure>,
    pub lines: Vec<String>,
    /// Of the conditional checks, those whose conditions were met.
    pub kept: Kept,
}

/// Checks that were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub liveness: u64,
    pub leaks: u64,
    pub silence: u64,
}

/// A violation, with the data to investigate it.
#[derive(Clone, Debug)]
pub struct Failure {
    seed: u64,
    violation: Violation,
    world: String,
    lines: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { at, rule, what } = &self.violation;
        writeln!(
            f,
            "seed {} violated an invariant at {:.3} s of virtual time",
            self.seed,
            at.as_secs_f64()
        )?;
        writeln!(
            f,
            "  {rule}\n  {what}\n{}\n  the end of its trace:",
            self.world
        )?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        write!(f, "  to repeat it: make sim SEED={}", self.seed)
    }
}

/// Runs `seed`. A failing seed runs again with a log.
#[must_use]
pub fn run(seed: u64) -> Outcome {
    let outcome = live(seed, TraceDetail::None);
    if outcome.failure.is_none() {
        return outcome;
    }
    live(seed, TraceDetail::Last)
}

/// Runs `seed` once.
///
/// # Panics
/// If the runtime cannot be created.
#[must_use]
pub fn live(seed: u64, detail: TraceDetail) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing of the system");
    // Inside the runtime, otherwise the epoch would be read from the real clock.
    runtime.block_on(async move { Life::new(seed, detail).run().await })
}

/// One run in progress.
struct Life {
    scenario: Arc<Scenario>,
    shared: Arc<Shared>,
    kept: Kept,
}

impl Life {
    fn new(seed: u64, detail: TraceDetail) -> Self {
        let scenario = Arc::new(Scenario::draw(seed));
        let trace = Trace::new(detail != TraceDetail::None, detail == TraceDetail::All);
        let shared = Arc::new(Shared::new(scenario.clone(), trace, Instant::now()));
        Self {
            scenario,
            shared,
            kept: Kept::default(),
        }
    }

    async fn run(mut self) -> Outcome {
        let shared = self.shared.clone();
        // Biased: a violation ends the run immediately.
        tokio::select! {
            biased;
            () = shared.failed() => {}
            () = self.play() => {}
        }
        shared.with(|state, _| {
            let lines = state.trace.lines();
            Outcome {
                seed: self.scenario.seed,
                hash: state.trace.hash(),
                tally: state.tally.clone(),
                calls: state.budget.total(),
                peak: state.budget.peak(),
                failure: state.broken.clone().map(|violation| Failure {
                    seed: self.scenario.seed,
                    violation,
                    world: self.scenario.to_string(),
                    lines: lines.clone(),
                }),
                lines,
                kept: self.kept,
            }
        })
    }

    async fn play(&mut self) {
        until(&self.shared, BOOT).await;
        self.shared.with(|state, now| {
            state.leave_over(now);
            state.world.set_throttling(
                state
                    .scenario
                    .windows
                    .iter()
                    .any(|w| w.fault == Fault::Buckets),
            );
        });
        let mut node = Node::new(self.shared.clone());
        node.start();
        let pods = Pods::new(self.shared.clone());
        let end = BOOT + self.scenario.chaos;
        tokio::join!(pods.arrive(end), self.inject_faults(&mut node, end));
        self.calm().await;
        self.collect(&pods).await;
    }

    /// Applies faults when they are due.
    async fn inject_faults(&self, node: &mut Node, end: Duration) {
        let cordons = self
            .scenario
            .windows
            .iter()
            .filter(|w| w.fault == Fault::Cordoned);
        let mut due: Vec<(Duration, Fault)> = self.scenario.sudden.clone();
        for window in cordons {
            due.extend([(window.from, Fault::Cordoned), (window.to, Fault::Cordoned)]);
        }
        let changes = self.scenario.places.changes.iter();
        due.extend(changes.map(|(at, change)| match change {
            Change::Tag { .. } => (*at, Fault::TagChanged),
            Change::Class(_) => (*at, Fault::ClassChanged),
        }));
        due.sort_by_key(|(at, _)| *at);
        let mut changes = self.scenario.places.changes.iter();
        for (at, fault) in due {
            until(&self.shared, BOOT + at).await;
            match fault {
                Fault::Crash => {
                    node.kill();
                    let down = self.shared.with(|state, _| state.calls.millis(50, 20_000));
                    tokio::time::sleep(down).await;
                    node.start();
                }
                Fault::Cordoned => self.cordon(BOOT + at).await,
                Fault::TagChanged | Fault::ClassChanged => {
                    if let Some((_, change)) = changes.next() {
                        self.change(change).await;
                    }
                }
                other => self.shared.with(|state, now| state.strike(other, now)),
            }
        }
        until(&self.shared, end).await;
    }

    /// The operator changes a tag or the ENIConfig. The API server tells a daemon of the latter.
    async fn change(&self, change: &Change) {
        let (told, pool) = self
            .shared
            .with(|state, now| (state.change_places(change, now), state.pool.clone()));
        if let (Some(class), Some(pool)) = (told, pool) {
            pool.tell(Event::Class(Ok(class))).await;
        }
    }

    async fn cordon(&self, at: Duration) {
        let cordoned = self.scenario.window(Fault::Cordoned, at).is_some();
        self.schedulable(!cordoned).await;
    }

    async fn schedulable(&self, schedulable: bool) {
        let pool = self.shared.with(|state, now| {
            if !schedulable {
                state.count(Fault::Cordoned, now);
            }
            state.pool.clone()
        });
        if let Some(pool) = pool {
            pool.tell(Event::Node {
                schedulable,
                stopping: false,
            })
            .await;
        }
    }

    /// Faults stop, and a dead daemon is started again.
    async fn calm(&self) {
        self.shared.with(|state, now| {
            state.trace.note(now, "calm", &[], || "the faults stop");
            state.calm(now);
        });
        // A daemon that has just started knows nothing of EC2 yet.
        while !self
            .snapshot()
            .await
            .is_some_and(|snapshot| snapshot.inventoried)
        {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.schedulable(true).await;
    }

    /// The final conditions after the faults have stopped.
    async fn collect(&mut self, pods: &Pods) {
        let calm = self.shared.now();
        self.expect_service(pods);
        let limit = self.shared.with(|state, _| oracle::address_limit(state));
        until(&self.shared, calm + limit).await;
        self.expect_no_address_leaks(limit).await;
        until(&self.shared, calm + (MINUTE * 3).max(limit)).await;
        self.shared.with(|state, _| state.entitled = None);
        until(&self.shared, calm + MINUTE * 9).await;
        let before = self.leaks().await;
        until(&self.shared, calm + MINUTE * 10).await;
        self.kept.leaks += 1;
        let after = self.leaks().await;
        if let Some(leak) = before.intersection(&after).next() {
            self.fail(
                "I4: nothing leaks",
                format!("{leak}, ten minutes after the faults stopped"),
            );
        }
        // The longest pod has ended, and its resources have been returned.
        until(&self.shared, calm + MINUTE * 30).await;
        self.expect_silence().await;
    }

    async fn expect_no_address_leaks(&self, limit: Duration) {
        let Some(snapshot) = self.snapshot().await else {
            return;
        };
        let leaks = self
            .shared
            .with(|state, now| oracle::leaked_addresses(state, &snapshot, now));
        if let Some(leak) = leaks.first() {
            let what = format!("{leak}, {} s after the faults stopped", limit.as_secs());
            self.fail("I4: a leaked address is found within two minutes", what);
        }
    }

    /// Pods request addresses and must get them if there are any.
    fn expect_service(&mut self, pods: &Pods) {
        let probes = self.shared.with(|state, now| {
            let capacity = oracle::capacity(state);
            let waiting = state.waiting;
            let spare = capacity.saturating_sub(waiting + 1);
            let probes = (1 + state.pods.index(6)).min(spare);
            let room = probes > 0;
            state.trace.note(now, "entitled", &[u64::from(room)], || {
                format!(
                    "{room}: {waiting} waiting, {probes} further requests, {capacity} addresses"
                )
            });
            state.entitled = room.then_some(now);
            room.then_some(probes)
        });
        self.kept.liveness += u64::from(probes.is_some());
        for number in 0..probes.unwrap_or(0) {
            pods.start(Wish {
                number: 1_000_000 + number as u64,
                patience: MINUTE * 2,
                life: MINUTE,
                called_off: None,
            });
        }
    }

    async fn snapshot(&self) -> Option<Snapshot> {
        let pool = self.shared.with(|state, _| state.pool.clone())?;
        pool.snapshot().await.ok()
    }

    async fn leaks(&self) -> BTreeSet<String> {
        match self.snapshot().await {
            Some(snapshot) => self
                .shared
                .with(|state, now| oracle::leaks(state, &snapshot, now)),
            None => BTreeSet::new(),
        }
    }

    /// I9: a node that has met its targets makes no calls in an hour.
    async fn expect_silence(&mut self) {
        let Some(snapshot) = self.snapshot().await else {
            return;
        };
        let settled = snapshot.targets.short == 0
            && snapshot.totals.waiting == 0
            && snapshot.totals.quarantined == 0;
        let before = self
            .shared
            .with(|state, _| (state.budget.total(), state.is_settled()));
        tokio::time::sleep(HOUR).await;
        let made = self.shared.with(|state, _| state.budget.total()) - before.0;
        let lists = match self.scenario.places.mode {
            Mode::Discovery => 1,
            Mode::Primary | Mode::Custom => 0,
        };
        let (limit, what) = match (settled && before.1, self.scenario.sizes_itself()) {
            (true, false) => (0, "a settled"),
            // What the demand of the last days no longer needs is returned, one ENI at a time.
            (true, true) => (8, "a self-sizing"),
            (false, _) => (60, "an unsettled"),
        };
        self.kept.silence += u64::from(limit == 0);
        if made > limit + lists {
            self.fail(
                "I9: an idle node makes no EC2 call",
                format!("{what} node made {made} calls in an hour"),
            );
        }
    }

    fn fail(&self, rule: &'static str, what: String) {
        self.shared.with(|state, now| state.fail(now, rule, what));
    }
}
