//! How often this node may call EC2: one token bucket per API, and what to do if the account's own bucket is empty.
//!
//! Pure: time and seed are arguments. It counts and returns when to call. [`super::executor`] waits, and the planner's
//! gate stays closed for a throttled action for the time returned here. Nothing else affects the rate of throttled
//! calls.
//!
//! EC2 counts per account, so a node that stays within its own budget can be throttled because of other nodes. A node
//! does not know how many others wait. It knows how long it has been throttled, and a pause in proportion to this time
//! works for a fleet of any size: if each node pauses for a quarter of the time that it has waited, the calls use up
//! the account's bucket until about a fifth of the fleet is left, and these nodes succeed within the next fifth of the
//! time. Doubling without a limit would leave the bucket unused half of the time; a short fixed pause would be a storm.
//! `docs/fleet.md` has the numbers.

use std::{collections::BTreeMap, time::Duration};

use planner::Mono;

/// A call that would have to wait longer in this node's own queue is refused instead: the planner can change its plan
/// while it waits, a task cannot.
const LONGEST_QUEUE: Duration = Duration::from_secs(5);
/// The pause after the first throttled call, and the minimum.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The maximum: how much longer pods may wait after the account has recovered.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The pause as a fraction of the time since the first of the consecutive throttled calls.
const PATIENCE: f64 = 0.25;
/// Multiplicative decrease and additive increase of this node's own rate; the increase is per successful call.
const DECREASE: f64 = 0.5;
const INCREASE: f64 = 0.5;
/// The minimum rate per second. It spaces the calls of a node that has several to make after a pause.
const LEAST_RATE: f64 = 0.2;

/// The burst, and the refill per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Capacity {
    pub burst: f64,
    pub refill: f64,
}

/// The account's bucket for `action`, as in the EC2 developer guide's "Request throttling" page. Reads are always
/// filtered or paged here. Actions that are not on the page get the default for mutating actions.
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
    /// Below zero: calls that wait in the queue.
    level: f64,
    /// The time of `level`. During a pause it is in the future: nothing is refilled until then.
    at: Mono,
    rate: f64,
    /// The first of the consecutive throttled calls.
    refused_since: Option<Mono>,
    /// The time of the next call.
    pause_until: Mono,
}

/// The state of one API's bucket, for metrics.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gauge {
    pub action: &'static str,
    /// Calls per second that this node's limiter allows now; less than EC2's refill rate after throttling.
    pub rate: f64,
    /// The time until the next call is allowed.
    pub pause: Duration,
}

/// The budget of one node.
#[derive(Clone, Debug)]
pub struct Limiter {
    buckets: BTreeMap<&'static str, Bucket>,
    random: u64,
}

impl Limiter {
    /// `seed` must differ between nodes, otherwise a fleet retries at the same time.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self {
            buckets: BTreeMap::new(),
            random: seed,
        }
    }

    /// Requests to send one call now.
    ///
    /// # Errors
    /// How long to wait, if the call would wait too long in the queue.
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

    /// EC2 throttled a call. Returns the pause for this API: no other call of this node can succeed before its end.
    pub fn throttled(&mut self, action: &'static str, now: Mono) -> Duration {
        let share = self.draw();
        let bucket = self.bucket(action, now);
        // Answers to calls from before the pause belong to the same throttling.
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
        // One call is the probe; the others follow at this node's reduced rate.
        bucket.level = 1.0;
        bucket.at = bucket.pause_until;
        pause
    }

    /// EC2 answered a call with success or another error: there was a token for it.
    pub fn admitted(&mut self, action: &'static str, now: Mono) {
        let bucket = self.bucket(action, now);
        if now < bucket.pause_until {
            return;
        }
        bucket.refused_since = None;
        bucket.rate = (bucket.rate + INCREASE).min(bucket.full.refill);
    }

    /// A random time within `most`, for operations that a whole fleet would otherwise start at once.
    pub fn spread(&mut self, most: Duration) -> Duration {
        most.mul_f64(self.draw())
    }

    /// Every API that was called so far.
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
