//! What this node's pods have really asked for, and the spare pool that follows from it when no `WARM_*` is set.
//!
//! Three things are learnt, each with the statistic that its use calls for:
//!
//! * **Bursts** decide how many addresses stay free. A burst's size is the most ADDs within one delivery time of EC2's
//!   in a run of ADDs without a pause: those are the pods that nothing but a spare address can serve at once. Sizes are
//!   counted, the counts fade ([`BURSTS_HALVE`]), and the spare is the smallest size that was exceeded no more than
//!   [`TOLERATED`] times. So what happened once is an accident, what happens often is held for all but a few per cent
//!   of the cases, and a node that falls silent arrives at the floor by itself, a step at a time. A mean would never
//!   serve a burst whole, a maximum would hold the worst hour for ever, and a share of all pods would call a nightly
//!   batch ordinary.
//! * **Surges** decide how much is asked for when a run outgrows the spare. A surge is the net rise of pods in one run;
//!   the largest is remembered for days ([`SURGE_HALVES`]), and what of it is still to come is asked for in one go:
//!   whoever must wait for EC2 anyway waits as long for a hundred addresses as for one.
//! * **Delivery**, from the wish for an ENI to its addresses being grantable, smoothed.
//!
//! Owns no pool and issues no command. Departures enter through `used`: the rise of a run is net of them.

use std::{collections::VecDeque, time::Duration};

use crate::Mono;

/// Half-life of the counts of bursts: about as long as a wave of deployments or a queue of CI jobs goes on. An hour
/// saves a tenth of the calls under churn and holds a tenth more idle addresses (here and below: `benches`' `warm`).
pub(crate) const BURSTS_HALVE: Duration = Duration::from_secs(1800);
/// Half-life of the surge: what comes each night must still be known the next night, nearly whole.
pub(crate) const SURGE_HALVES: Duration = Duration::from_secs(7 * 86_400);
/// Bursts that may exceed the spare, in faded counts. With one, two batches in half an hour are a rule already; with
/// three, hardly fewer addresses are held, for large sizes are rare, and calls rise.
const TOLERATED: f64 = 2.0;
/// The spare is never smaller: pods come in ones and twos at any time (a rolling update replaces one while another
/// starts), and with none to spare each would wait for EC2.
const FLOOR: u32 = 2;
/// A count that has faded this far tells nothing.
const FORGOTTEN: f64 = 0.01;
/// A run is cut after this long, or a node with steady traffic would never learn anything.
const RUN: Duration = Duration::from_secs(600);
/// EC2's delivery before the first one was seen (ec2-and-faults §3.5: create, attach, attaching).
const DELIVERY: Duration = Duration::from_secs(6);
/// Delivery is believed within these bounds: one stuck attach must not make an hour's pods one burst.
const DELIVERY_BOUNDS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// What was learnt, as plain values; it is worth keeping over a restart ([`crate::Restored`]).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Sizes of bursts in pods, ascending, and how often each was seen: faded counts as of `at`.
    pub bursts: Vec<(u32, f64)>,
    /// The largest net rise of pods in one run, faded as of `at`.
    pub surge: f64,
    /// From asking EC2 for an ENI to its addresses being grantable, smoothed. Zero: never seen.
    pub delivery: Duration,
    pub at: Mono,
}

/// What the pool is to hold, in addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Target {
    /// Grow when fewer are available.
    pub low: u32,
    /// When growing, up to this many.
    pub fill: u32,
    /// Free addresses that stay when some are given back.
    pub keep: u32,
    /// Give back only when more than this are free.
    pub high: u32,
}

/// Pods that came without a pause longer than a delivery.
#[derive(Clone, Debug)]
struct Run {
    since: Mono,
    last: Mono,
    /// The most ADDs within one delivery time.
    peak: u32,
    /// Pods when it began, and the most it has added to them.
    base: u32,
    rise: u32,
}

/// Watches the demand.
#[derive(Clone, Debug)]
pub(crate) struct DemandTracker {
    learnt: Demand,
    recent: VecDeque<Mono>,
    run: Option<Run>,
    /// Pod addresses on one ENI, and on the node.
    eni: u32,
    limit: u32,
}

impl DemandTracker {
    /// A node of which nothing is known is taken for one about to get its first pods: half an ENI of them, believed
    /// for one half-life.
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

    /// Takes over what was learnt before a restart; figures that no run could have left there are dropped.
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

    /// What was learnt so far; the run under way is not part of it.
    pub(crate) fn learnt(&self, now: Mono) -> Demand {
        let mut learnt = self.learnt.clone();
        learnt.fade(now);
        learnt
    }

    /// A pod wants an address; `used` have or want one already.
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

    /// EC2 brought what was asked for `took` ago.
    pub(crate) fn delivered(&mut self, took: Duration) {
        let (least, most) = DELIVERY_BOUNDS;
        let took = took.clamp(least, most);
        self.learnt.delivery = match self.learnt.delivery {
            Duration::ZERO => took,
            known => (known * 3 + took) / 4,
        };
    }

    /// Time passes: a run that has paused is over, and teaches.
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
        // A burst has just taken the rest, and its pods may leave before the next one comes: to refill at once makes
        // half as many calls again under churn, and holds no fewer idle addresses.
        let low = spare.div_ceil(2).max(ahead);
        Target {
            low,
            fill: (spare + slack).max(ahead),
            keep: (spare + slack).max(ahead),
            high: (spare + 3 * slack).max(ahead),
        }
    }

    /// Free addresses to keep in quiet times, for the next burst.
    pub(crate) fn spare(&self, now: Mono) -> u32 {
        // Not `clamp`: a node with a single ENI of two addresses has a limit below the floor.
        self.learnt.ordinary(now).max(FLOOR).min(self.limit)
    }

    /// The grain of growth: a sixth of an ENI, so that a node asks for little where ENIs are small. With a fifth, idle
    /// addresses rise by a tenth; with a tenth, a steady node's calls double. The band within which nothing is done is three of these
    /// wide: narrower, the ups and downs of a steady node cost a call each.
    fn slack(&self) -> u32 {
        (self.eni / 6).clamp(1, 12)
    }

    /// What a run that has outgrown the spare is about to ask for: as much as the last surge still lacks; or, if that
    /// tells nothing, what comes at its present rate until EC2 has delivered, but no more than one ENI, for the run may
    /// end this moment.
    fn ahead(&self, spare: u32, now: Mono) -> u32 {
        let Some(run) = self.run.as_ref().filter(|run| run.rise > spare) else {
            return 0;
        };
        let delivery = self.learnt.expected();
        let age = now.since(run.since).clamp(Duration::from_secs(1), delivery);
        let rate = f64::from(count(self.recent.len())) / age.as_secs_f64();
        let coming = whole(rate * delivery.as_secs_f64()).min(self.eni);
        let surge = self.learnt.surge(now);
        // A quarter more, for memory fades and no two nights are alike: falling short costs a second round of calls.
        let lacking = (surge + surge / 4).saturating_sub(run.rise);
        if lacking > 0 { lacking } else { coming }
    }

    /// When the target changes by itself: at the end of a run, or as memory fades.
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

    /// The smallest size that was exceeded no more often than tolerated.
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

    /// When bursts of at least `size` have become rare enough to be tolerated.
    fn fades_below(&self, size: u32) -> Option<Mono> {
        let known = self.bursts.iter().filter(|(other, _)| *other >= size);
        let weight: f64 = known.map(|(_, weight)| weight).sum();
        (weight > TOLERATED).then(|| after(self.at, (weight / TOLERATED).log2(), BURSTS_HALVE))
    }

    fn surge(&self, now: Mono) -> u32 {
        whole(self.surge * half(now.since(self.at), SURGE_HALVES))
    }
}

/// The share that is left after `age`.
fn half(age: Duration, life: Duration) -> f64 {
    (-age.as_secs_f64() / life.as_secs_f64()).exp2()
}

/// A moment just beyond so many half-lives: rounding must not land it just before.
fn after(at: Mono, halvings: f64, life: Duration) -> Mono {
    at + life.mul_f64(halvings) + Duration::from_secs(1)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// The whole part, for figures that are counts of pods.
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
