//! What this node's pods have requested so far, and the pool size that follows from it if no `WARM_*` variable is set.
//!
//! Three figures are learnt:
//!
//! * **Bursts** decide how many addresses stay free. A run is a sequence of ADDs without a pause. The size of its burst is
//!   the most ADDs within the time that EC2 takes to deliver an ENI: only spare addresses can serve those pods at once.
//!   Sizes are counted, the counts fade ([`BURSTS_HALVE`]), and the spare is the smallest size that was exceeded at most
//!   [`TOLERATED`] times. So a single large burst has no effect, frequent bursts are served at once, and an idle node
//!   returns to the minimum step by step. A mean would never serve a whole burst. A maximum would keep the worst hour for
//!   ever. A share of all pods would count a nightly batch as usual.
//! * **Surges** decide how much is requested when a run is larger than the spare. A surge is the net rise of pods in one
//!   run. The largest is remembered for days ([`SURGE_HALVES`]), and what is missing of it is requested at once: EC2 takes
//!   as long for a hundred addresses as for one.
//! * **Delivery** is the smoothed time from the need for an ENI until its addresses are grantable.
//!
//! Owns no pool and issues no command. Pods that leave are part of `used`, so the rise of a run is net of them.

use std::{collections::VecDeque, time::Duration};

use crate::Mono;

/// Half-life of the counts of bursts: about the length of a series of deployments or a queue of CI jobs. An hour would save
/// a tenth of the calls under churn and hold a tenth more idle addresses (here and below: `benches`' `warm`).
pub(crate) const BURSTS_HALVE: Duration = Duration::from_secs(1800);
/// Half-life of the surge: a nightly surge must be remembered almost completely until the next night.
pub(crate) const SURGE_HALVES: Duration = Duration::from_secs(7 * 86_400);
/// Bursts that may exceed the spare, in faded counts. With one, two batches in half an hour would count as usual. With
/// three, there are more calls and hardly fewer addresses, because large bursts are rare.
const TOLERATED: f64 = 2.0;
/// The spare is never smaller: one or two pods may come at any time (a rolling update), and without a spare address each
/// would wait for EC2.
const FLOOR: u32 = 2;
/// A count below this is dropped.
const FORGOTTEN: f64 = 0.01;
/// A run ends after this time, otherwise a node with steady traffic would never learn.
const RUN: Duration = Duration::from_secs(600);
/// The assumed delivery before the first was measured (ec2-and-faults §3.5: create, attach, attaching).
const DELIVERY: Duration = Duration::from_secs(6);
/// Delivery is limited to these bounds, so that one stuck attach does not turn an hour's pods into one burst.
const DELIVERY_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// The learnt figures. They are kept over a restart ([`crate::Restored`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Sizes of bursts in pods, ascending, with their counts, faded as of `at`.
    pub bursts: Vec<(u32, f64)>,
    /// The largest net increase of pods in one run, decayed to the time `at`.
    pub surge: f64,
    /// The smoothed time from requesting an ENI until its addresses are grantable, if it was measured.
    pub delivery: Option<Duration>,
    pub at: Mono,
}

/// What the pool should hold, in addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Grow if fewer are available.
    pub low: u32,
    /// Grow up to this many.
    pub fill: u32,
    /// Keep this many free when some are given back.
    pub keep: u32,
    /// Return addresses only if more than this number are free.
    pub high: u32,
    /// More pods have come than ever before, and nobody knows how many follow: fill each ENI that is used.
    pub rising: bool,
}

/// A sequence of ADDs without a pause longer than a delivery.
#[derive(Clone, Debug)]
struct Run {
    since: Mono,
    last: Mono,
    /// The largest number of ADDs within one delivery time.
    peak: u32,
    /// Pods when it began, and the most that it has added.
    base: u32,
    rise: u32,
}

/// Learns the demand from ADDs.
#[derive(Clone, Debug)]
pub(crate) struct DemandTracker {
    learnt: Demand,
    recent: VecDeque<Mono>,
    run: Option<Run>,
    /// Pod addresses of one ENI and of the node.
    eni: u32,
    limit: u32,
}

impl DemandTracker {
    /// A new node is expected to get its first pods soon: a burst of half an ENI, for one half-life.
    pub(crate) fn new(eni: u32, limit: u32) -> Self {
        let first = (eni / 2).max(FLOOR);
        let learnt = Demand {
            bursts: vec![(first, 2.0 * TOLERATED)],
            ..Demand::default()
        };
        Self {
            learnt,
            recent: VecDeque::new(),
            run: None,
            eni,
            limit,
        }
    }

    /// The node can hold more or fewer pods by now.
    pub(crate) const fn set_limit(&mut self, limit: u32) {
        self.limit = limit;
    }

    /// Restores the figures from before a restart. Impossible figures are dropped.
    pub(crate) fn restore(&mut self, mut learnt: Demand, now: Mono) {
        learnt
            .bursts
            .retain(|(_, weight)| weight.is_finite() && *weight > 0.0);
        learnt.bursts.sort_by_key(|(size, _)| *size);
        learnt.surge = if learnt.surge.is_finite() {
            learnt.surge.clamp(0.0, self.limit.into())
        } else {
            0.0
        };
        learnt.delivery = learnt.delivery.map(|known| known.min(DELIVERY_BOUNDS.1));
        learnt.at = learnt.at.min(now);
        self.learnt = learnt;
    }

    /// The figures so far, without the current run.
    pub(crate) fn learnt(&self, now: Mono) -> Demand {
        let mut learnt = self.learnt.clone();
        learnt.fade(now);
        learnt
    }

    /// A pod wants an address. `used` pods have one or wait for one.
    pub(crate) fn add(&mut self, used: u32, now: Mono) {
        self.advance(now);
        let delivery = self.learnt.expected();
        while self.recent.front().is_some_and(|at| *at + delivery <= now) {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
        let in_one_delivery = count(self.recent.len());
        let run = self.run.get_or_insert(Run {
            since: now,
            last: now,
            peak: 0,
            base: used,
            rise: 0,
        });
        run.last = now;
        run.peak = run.peak.max(in_one_delivery);
        run.rise = run.rise.max((used + 1).saturating_sub(run.base));
    }

    /// EC2 delivered an ENI that was requested `took` ago.
    pub(crate) fn delivered(&mut self, took: Duration) {
        let (least, most) = DELIVERY_BOUNDS;
        let took = took.clamp(least, most);
        let smoothed = self.learnt.delivery.map(|known| (known * 3 + took) / 4);
        self.learnt.delivery = Some(smoothed.unwrap_or(took));
    }

    /// Time passes: a run that has paused is over, and its figures are learnt.
    pub(crate) fn advance(&mut self, now: Mono) {
        if let Some(run) = self
            .run
            .take_if(|run| now >= run.last + self.learnt.expected() || now >= run.since + RUN)
        {
            self.learnt.fade(now);
            self.learnt.count(run.peak.min(self.limit));
            self.learnt.surge = self.learnt.surge.max(run.rise.into());
        }
    }

    /// What the pool is to hold at this moment. Call [`DemandTracker::pass`] first.
    pub(crate) fn target(&self, now: Mono) -> Target {
        let spare = self.spare(now);
        let ahead = self.ahead(spare, now);
        let slack = self.slack();
        // After a burst, its pods may leave before the next one comes. Refilling at once would make half as many calls
        // again under churn, and hold as many idle addresses.
        let low = spare.div_ceil(2).max(ahead);
        Target {
            low,
            fill: (spare + slack).max(ahead),
            keep: (spare + slack).max(ahead),
            high: (spare + 3 * slack).max(ahead),
            rising: self.rising(spare, now),
        }
    }

    /// The free addresses to keep for the next burst in quiet times.
    pub(crate) fn spare(&self, now: Mono) -> u32 {
        // Not `clamp`: a node with one ENI of two addresses has a limit below the floor.
        self.learnt.ordinary(now).max(FLOOR).min(self.limit)
    }

    /// The step of growth: a sixth of an ENI, so that a node with small ENIs requests little. With a fifth, idle addresses
    /// rise by a tenth. With a tenth, the calls of a steady node double. Nothing is done within a band of three steps: with
    /// a narrower band, each small change on a steady node would cost a call.
    fn slack(&self) -> u32 {
        (self.eni / 6).clamp(1, 12)
    }

    /// How many more pods to expect from a run that is larger than the spare: what is missing of the last surge. If nothing
    /// is known of it, what comes at the current rate until EC2 has delivered, but at most one ENI, because the run may end
    /// at any time.
    fn ahead(&self, spare: u32, now: Mono) -> u32 {
        let Some(run) = self.run.as_ref().filter(|run| run.rise > spare) else {
            return 0;
        };
        let delivery = self.learnt.expected();
        let age = now.since(run.since).clamp(Duration::from_secs(1), delivery);
        let rate = f64::from(count(self.recent.len())) / age.as_secs_f64();
        let coming = whole(rate * delivery.as_secs_f64()).min(self.eni);
        let surge = self.learnt.surge(now);
        // A quarter more: the memory has faded and surges differ, and too little would cost a second round of calls.
        let lacking = (surge + surge / 4).saturating_sub(run.rise);
        if lacking > 0 { lacking } else { coming }
    }

    /// Whether a run is larger than the spare and than the surges that are known.
    fn rising(&self, spare: u32, now: Mono) -> bool {
        let surge = self.learnt.surge(now);
        let expected = spare.max(surge + surge / 4);
        self.run.as_ref().is_some_and(|run| run.rise > expected)
    }

    /// When the target changes without an event: at the end of a run, or when counts have faded.
    pub(crate) fn next_change(&self, now: Mono) -> Option<Mono> {
        let run = self.run.as_ref().map(|run| {
            let pause = run.last + self.learnt.expected();
            pause.min(run.since + RUN)
        });
        let spare = self.spare(now);
        let fade = (spare > FLOOR.min(self.limit)).then(|| self.learnt.fades_below(spare));
        [run, fade.flatten()].into_iter().flatten().min()
    }
}

impl Demand {
    fn expected(&self) -> Duration {
        let (least, most) = DELIVERY_BOUNDS;
        self.delivery
            .map_or(DELIVERY, |known| known.clamp(least, most))
    }

    fn fade(&mut self, now: Mono) {
        let share = half(now.since(self.at), BURSTS_HALVE);
        for (_, weight) in &mut self.bursts {
            *weight *= share;
        }
        self.bursts.retain(|(_, weight)| *weight >= FORGOTTEN);
        self.surge *= half(now.since(self.at), SURGE_HALVES);
        self.at = self.at.max(now);
    }

    fn count(&mut self, size: u32) {
        match self.bursts.binary_search_by_key(&size, |(known, _)| *known) {
            Ok(i) => self.bursts[i].1 += 1.0,
            Err(i) => self.bursts.insert(i, (size, 1.0)),
        }
    }

    /// The smallest size that was exceeded at most [`TOLERATED`] times.
    fn ordinary(&self, now: Mono) -> u32 {
        let share = half(now.since(self.at), BURSTS_HALVE);
        let mut exceeding = 0.0;
        for (size, weight) in self.bursts.iter().rev() {
            exceeding += weight * share;
            if exceeding > TOLERATED {
                return *size;
            }
        }
        0
    }

    /// When the count of bursts of at least `size` falls to [`TOLERATED`].
    fn fades_below(&self, size: u32) -> Option<Mono> {
        let known = self.bursts.iter().filter(|(other, _)| *other >= size);
        let weight: f64 = known.map(|(_, weight)| weight).sum();
        (weight > TOLERATED).then(|| after(self.at, (weight / TOLERATED).log2(), BURSTS_HALVE))
    }

    fn surge(&self, now: Mono) -> u32 {
        whole(self.surge * half(now.since(self.at), SURGE_HALVES))
    }
}

/// The remaining share after `age`.
fn half(age: Duration, life: Duration) -> f64 {
    (-age.as_secs_f64() / life.as_secs_f64()).exp2()
}

/// A time just after this many half-lives. The extra second guards against rounding.
fn after(at: Mono, halvings: f64, life: Duration) -> Mono {
    at + life.mul_f64(halvings) + Duration::from_secs(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The whole part of a count.
fn whole(figure: f64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range first; there is no fallible conversion from f64"
    )]
    let whole = figure.clamp(0.0, f64::from(u32::MAX)) as u32;
    whole
}

#[cfg(test)]
mod tests;
