//! The observed demand of this node's pods, and the number of spare addresses that follows from it if no `WARM_*`
//! variable is set.
//!
//! Three quantities are learned, each with its own statistic:
//!
//! * **Bursts** determine how many addresses stay free. The size of a burst is the largest number of ADDs within EC2's
//!   delivery time, in a run of ADDs without a pause. Only spare addresses can serve these pods without a wait. Bursts
//!   are counted by size, and the counts decay ([`BURSTS_HALVE`]). The spare is the smallest size that was exceeded at
//!   most [`TOLERATED`] times. A single burst therefore changes nothing, frequent bursts are covered except for a few
//!   per cent, and an idle node goes down to the minimum step by step. A mean would never cover a whole burst, a
//!   maximum would keep the worst hour forever, and a share of all pods would treat a nightly batch as ordinary.
//! * **Surges** determine how much to request when a run exceeds the spare. A surge is the net increase of pods in one
//!   run. The largest surge is remembered for days ([`SURGE_HALVES`]), and what is missing to it is requested at once:
//!   pods that wait for EC2 wait as long for a hundred addresses as for one.
//! * **Delivery** is the time from the request for an ENI until its addresses can be assigned, smoothed.
//!
//! This module owns no pool and issues no commands. Deleted pods are visible in `used`: the increase of a run is net of
//! them.

use std::{collections::VecDeque, time::Duration};

use crate::Mono;

/// Half-life of the burst counts: about the duration of a rollout or of a queue of CI jobs. With one hour, there are 10
/// % fewer calls under churn and 10 % more idle addresses (measured with `benches`' `warm`, like the values below).
pub(crate) const BURSTS_HALVE: Duration = Duration::from_secs(1800);
/// Half-life of the surge: a nightly surge must still be known almost completely in the next night.
pub(crate) const SURGE_HALVES: Duration = Duration::from_secs(7 * 86_400);
/// The number of bursts, in decayed counts, that may exceed the spare. With one, two batches in half an hour already
/// count as a rule. With three, the pool holds almost as many addresses, because large bursts are rare, and makes more
/// calls.
const TOLERATED: f64 = 2.0;
/// The minimum spare. Pods come in ones and twos at any time (a rolling update replaces one while another starts).
/// Without a spare address, each of them would wait for EC2.
const FLOOR: u32 = 2;
/// A count below this value is dropped.
const FORGOTTEN: f64 = 0.01;
/// A run is cut after this time, otherwise a node with steady traffic would never learn anything.
const RUN: Duration = Duration::from_secs(600);
/// EC2's delivery time before the first measurement (ec2-and-faults §3.5: create, attach, attaching).
const DELIVERY: Duration = Duration::from_secs(6);
/// The measured delivery time is limited to this range, so that one slow Attach does not turn the pods of an hour into
/// one burst.
const DELIVERY_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// What was learned, as plain values. It is kept over a restart ([`crate::Restored`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Burst sizes in pods, ascending, and how often each was seen, as decayed counts at the time `at`.
    pub bursts: Vec<(u32, f64)>,
    /// The largest net increase of pods in one run, decayed to the time `at`.
    pub surge: f64,
    /// The time from the request for an ENI until its addresses can be assigned, smoothed. Zero if not measured yet.
    pub delivery: Duration,
    pub at: Mono,
}

/// The pool's target, in addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Grow if fewer are available.
    pub low: u32,
    /// Grow up to this number.
    pub fill: u32,
    /// The free addresses that stay when some are returned.
    pub keep: u32,
    /// Return addresses only if more than this number are free.
    pub high: u32,
}

/// Pods that came without a pause longer than a delivery.
#[derive(Clone, Debug)]
struct Run {
    since: Mono,
    last: Mono,
    /// The largest number of ADDs within one delivery time.
    peak: u32,
    /// The number of pods at its start, and the largest increase since then.
    base: u32,
    rise: u32,
}

/// Measures the demand.
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
    /// A new node expects its first pods: half an ENI of addresses, which decays like a burst.
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

    /// Restores what was learned before a restart. Values that no run can produce are dropped.
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
        learnt.delivery = learnt.delivery.min(DELIVERY_BOUNDS.1);
        learnt.at = learnt.at.min(now);
        self.learnt = learnt;
    }

    /// What was learned so far, without the current run.
    pub(crate) fn learnt(&self, now: Mono) -> Demand {
        let mut learnt = self.learnt.clone();
        learnt.fade(now);
        learnt
    }

    /// A pod needs an address; `used` pods already have or need one.
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

    /// EC2 delivered after `took`.
    pub(crate) fn delivered(&mut self, took: Duration) {
        let (least, most) = DELIVERY_BOUNDS;
        let took = took.clamp(least, most);
        self.learnt.delivery = match self.learnt.delivery {
            Duration::ZERO => took,
            known => (known * 3 + took) / 4,
        };
    }

    /// Updates the time: a run that has paused is complete and is counted.
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
        // A burst has just used the spare, and its pods may end before the next burst. Refilling at once would make 50
        // % more calls under churn and hold as many idle addresses.
        let low = spare.div_ceil(2).max(ahead);
        Target {
            low,
            fill: (spare + slack).max(ahead),
            keep: (spare + slack).max(ahead),
            high: (spare + 3 * slack).max(ahead),
        }
    }

    /// The free addresses to keep for the next burst in quiet times.
    pub(crate) fn spare(&self, now: Mono) -> u32 {
        // Not `clamp`: a node with a single ENI with two addresses has a limit below the minimum.
        self.learnt.ordinary(now).max(FLOOR).min(self.limit)
    }

    /// The step of growth: a sixth of an ENI, so that a node with small ENIs requests few addresses. With a fifth, idle
    /// addresses increase by 10 %; with a tenth, a steady node makes twice as many calls. The band in which nothing is
    /// done is three steps wide. In a narrower band, normal variations of a steady node would each cost a call.
    fn slack(&self) -> u32 {
        (self.eni / 6).clamp(1, 12)
    }

    /// What a run that has exceeded the spare will still need: the rest of the last surge. If the surge is not larger,
    /// the pods that come at the current rate until EC2 has delivered, but at most one ENI, because the run may end at
    /// any time.
    fn ahead(&self, spare: u32, now: Mono) -> u32 {
        let Some(run) = self.run.as_ref().filter(|run| run.rise > spare) else {
            return 0;
        };
        let delivery = self.learnt.expected();
        let age = now.since(run.since).clamp(Duration::from_secs(1), delivery);
        let rate = f64::from(count(self.recent.len())) / age.as_secs_f64();
        let coming = whole(rate * delivery.as_secs_f64()).min(self.eni);
        let surge = self.learnt.surge(now);
        // A quarter more, because the surge decays and no two nights are the same. If it is not enough, a second round
        // of calls is needed.
        let lacking = (surge + surge / 4).saturating_sub(run.rise);
        if lacking > 0 { lacking } else { coming }
    }

    /// When the target changes without an event: at the end of a run, or by decay.
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
        match self.delivery {
            Duration::ZERO => DELIVERY,
            known => known.clamp(least, most),
        }
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

    /// The smallest size that was exceeded at most as often as tolerated.
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

    /// When bursts of at least `size` have decayed to the tolerated number.
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

/// A time slightly after this number of half-lives, so that rounding does not result in a time before it.
fn after(at: Mono, halvings: f64, life: Duration) -> Mono {
    at + life.mul_f64(halvings) + Duration::from_secs(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The integer part, for values that are counts of pods.
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
