//! How often this node may call EC2: one token bucket per API, and what to do when the account's own bucket is empty.
//!
//! Pure: time and seed are arguments. It counts and answers "when"; [`super::executor`] waits, the planner's gate keeps
//! a refused action shut for as long as is said here, and nobody else shapes the pace of throttled calls.
//!
//! EC2 counts per account, so a node that is alone in keeping its own budget is still throttled by all others. Nothing
//! tells a node how many wait with it. What it does know is for how long it has been refused, and a pause in proportion
//! to that suits a fleet of any size: if each waits a quarter of the time that it has waited, the account's bucket is
//! asked often enough to stay in use until about a fifth of the fleet is left, and those come within the next fifth.
//! Doubling without a cap would leave the bucket idle for half the time, a short fixed pause would be a storm.
//! `docs/fleet.md` has the figures.

use std::{collections::BTreeMap, time::Duration};

use planner::Mono;

/// A call that would have to stand in this node's own queue for longer is turned away instead: the planner waits better
/// than a task does, for it can change its mind.
const LONGEST_QUEUE: Duration = Duration::from_secs(5);
/// The pause after the first refusal, and the least one.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest one: what a node may add to its waiting pods' time after the account has recovered.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause as a share of the time since the first refusal in a row.
const PATIENCE: f64 = 0.25;
/// Multiplicative decrease and additive increase of this node's own rate, the latter per answered call.
const DECREASE: f64 = 0.5;
const INCREASE: f64 = 0.5;
/// The least rate per second. It spaces the calls of a node that has several to make when its pause ends.
const LEAST_RATE: f64 = 0.2;

/// The burst, and the refill per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    pub burst: f64,
    pub refill: f64,
}

/// The account's bucket for `action`, as the EC2 developer guide's "Request throttling" page lists it for a region.
/// Reads are the filtered or paged ones: no others are sent. What the page does not list gets the default for
/// mutating actions.
#[must_use]
pub fn capacity(action: &str) -> Capacity {
    let (burst, refill) = match action {
        _ if action.starts_with("Describe") => (100.0, 20.0),
        "CreateNetworkInterface"
        | "DeleteNetworkInterface"
        | "ModifyNetworkInterfaceAttribute"
        | "AssignPrivateIpAddresses"
        | "AssignIpv6Addresses"
        | "UnassignPrivateIpAddresses" => (100.0, 5.0),
        _ => (50.0, 5.0),
    };
    Capacity { burst, refill }
}

#[derive(Clone, Debug)]
struct Bucket {
    full: Capacity,
    /// Below zero: calls that wait for their turn.
    level: f64,
    /// When `level` was true. Ahead of now during a pause: nothing is refilled until then.
    at: Mono,
    rate: f64,
    /// The first of the present row of refusals.
    refused_since: Option<Mono>,
    /// The next call may go out at this moment.
    pause_until: Mono,
}

/// What one API's bucket looks like, for metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    pub action: &'static str,
    /// Calls per second that this node allows itself at present; less than EC2's refill after throttling.
    pub rate: f64,
    /// Until the next call may be sent.
    pub pause: Duration,
}

/// The budget of one node.
#[derive(Clone, Debug)]
pub struct Limiter {
    buckets: BTreeMap<&'static str, Bucket>,
    random: u64,
}

impl Limiter {
    /// `seed` must differ between nodes, or a fleet retries in step.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            buckets: BTreeMap::new(),
            random: seed,
        }
    }

    /// Asks to send one call now.
    ///
    /// # Errors
    /// How long to stay away, if the call's turn is too far off to stand and wait for it.
    pub fn take(&mut self, action: &'static str, now: Mono) -> Result<Duration, Duration> {
        let bucket = self.bucket(action, now);
        bucket.refill(now);
        let missing = (1.0 - bucket.level).max(0.0);
        let wait = bucket.pause_until.since(now) + Duration::from_secs_f64(missing / bucket.rate);
        if wait > LONGEST_QUEUE {
            return Err(wait);
        }
        bucket.level -= 1.0;
        Ok(wait)
    }

    /// EC2 turned a call away for want of tokens. Returns how long to stay away from this API: nobody of this node's
    /// calls can succeed where this one did not.
    pub fn throttled(&mut self, action: &'static str, now: Mono) -> Duration {
        let share = self.draw();
        let bucket = self.bucket(action, now);
        // Answers to calls sent before the pause began are part of the same refusal.
        if now < bucket.pause_until {
            return bucket.pause_until.since(now);
        }
        let since = *bucket.refused_since.get_or_insert(now);
        let full = now
            .since(since)
            .mul_f64(PATIENCE)
            .clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let pause = full.mul_f64(0.5 + share / 2.0);
        bucket.rate = (bucket.rate * DECREASE).max(LEAST_RATE);
        bucket.pause_until = now + pause;
        // One call probes; the others follow it at this node's reduced rate.
        bucket.level = 1.0;
        bucket.at = bucket.pause_until;
        pause
    }

    /// EC2 answered a call, with success or with any other error: there was a token for it.
    pub fn admitted(&mut self, action: &'static str, now: Mono) {
        let bucket = self.bucket(action, now);
        if now < bucket.pause_until {
            return;
        }
        bucket.refused_since = None;
        bucket.rate = (bucket.rate + INCREASE).min(bucket.full.refill);
    }

    /// A moment within `most`, for what a whole fleet would else do at once.
    pub fn spread(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.draw())
    }

    /// Every API called so far.
    #[must_use]
    pub fn gauges(&self, now: Mono) -> Vec<Gauge> {
        let gauge = |(action, bucket): (&&'static str, &Bucket)| Gauge {
            action,
            rate: bucket.rate,
            pause: bucket.pause_until.since(now),
        };
        self.buckets.iter().map(gauge).collect()
    }

    fn bucket(&mut self, action: &'static str, now: Mono) -> &mut Bucket {
        self.buckets.entry(action).or_insert_with(|| {
            let full = capacity(action);
            Bucket {
                full,
                level: full.burst,
                at: now,
                rate: full.refill,
                refused_since: None,
                pause_until: now,
            }
        })
    }

    /// From 0 to 1: SplitMix64, whose state is one word.
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.random ^ (self.random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        f64::from(high) / f64::from(u32::MAX)
    }
}

impl Bucket {
    fn refill(&mut self, now: Mono) {
        let gained = now.since(self.at).as_secs_f64() * self.rate;
        self.level = (self.level + gained).min(self.full.burst);
        self.at = self.at.max(now);
    }
}

#[cfg(test)]
mod tests;
