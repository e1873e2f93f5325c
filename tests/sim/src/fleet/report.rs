//! The cost of a scenario: calls, throttling, and time compared with the floor of EC2's buckets.

use std::{collections::BTreeMap, fmt, time::Duration};

use ipamd::ec2::limiter::capacity;

use super::account::Seen;

/// The maximum ratio of a fleet's time to the floor.
pub const TARGET: f64 = 1.25;

/// How long each node waited, sorted.
pub type Served = Vec<Duration>;

/// Calls of one API in one scenario.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub answered: usize,
    pub throttled: usize,
}

/// One scenario.
#[derive(Clone, Debug)]
pub struct Row {
    pub scenario: &'static str,
    pub nodes: usize,
    pub calls: BTreeMap<&'static str, Tally>,
    /// The maximum number of calls in one second, including throttled ones.
    pub peak: usize,
    pub served: Served,
    /// Calls per second until the last node was served.
    pub mean: f64,
}

impl Row {
    #[must_use]
    pub fn new(scenario: &'static str, nodes: usize, seen: Vec<Seen>, served: Served) -> Self {
        let mut calls: BTreeMap<_, Tally> = BTreeMap::new();
        let mut seconds: BTreeMap<u64, usize> = BTreeMap::new();
        for call in &seen {
            let tally = calls.entry(call.action).or_default();
            *(if call.throttled {
                &mut tally.throttled
            } else {
                &mut tally.answered
            }) += 1;
            *seconds.entry(call.at.as_secs()).or_default() += 1;
        }
        let end = served.last().copied().unwrap_or_default();
        let until = seen.iter().filter(|call| call.at <= end).count();
        Self {
            scenario,
            nodes,
            calls,
            peak: seconds.into_values().max().unwrap_or(0),
            mean: float(until) / end.as_secs_f64().max(1.0),
            served,
        }
    }

    /// The minimum time in which EC2 admits the calls that pods wait for, one per node and API, from full buckets.
    #[must_use]
    pub fn floor(&self) -> Duration {
        let needed = self.calls.keys().filter(|action| pods_wait_for(action));
        let floors = needed.map(|action| {
            let bucket = capacity(action);
            (float(self.nodes) - bucket.burst).max(0.0) / bucket.refill
        });
        Duration::from_secs_f64(floors.fold(0.0, f64::max))
    }

    /// The time until all were served, divided by the floor.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        self.percentile(100).as_secs_f64() / self.floor().as_secs_f64()
    }

    /// The time within which this percentage of the nodes was served.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.served.len() * percent).div_ceil(100);
        let found = self.served.get(rank.saturating_sub(1));
        found.copied().unwrap_or_default()
    }

    #[must_use]
    pub fn total(&self) -> Tally {
        self.calls
            .values()
            .fold(Tally::default(), |sum, tally| Tally {
                answered: sum.answered + tally.answered,
                throttled: sum.throttled + tally.throttled,
            })
    }

    /// Whether the target is met: in time, or if there were no requests, with no calls but a list of subnets per node.
    #[must_use]
    pub fn passes(&self) -> bool {
        if self.served.is_empty() {
            let listed = self.calls.get("DescribeSubnets");
            let listed = listed.map_or(0, |tally| tally.answered + tally.throttled);
            self.calls.keys().all(|action| *action == "DescribeSubnets") && listed <= self.nodes
        } else {
            self.ratio() <= TARGET
        }
    }
}

/// ModifyNetworkInterfaceAttribute matters only when the instance is terminated: no pod waits for it.
fn pods_wait_for(action: &str) -> bool {
    action != "ModifyNetworkInterfaceAttribute"
}

/// The heading of the table that rows print.
#[must_use]
pub fn heading() -> String {
    format!(
        "{:>5} {:<17} {:>6} {:>9} {:>8} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6} {:>6}  verdict",
        "nodes",
        "scenario",
        "calls",
        "throttled",
        "attempts",
        "peak/s",
        "mean/s",
        "p50 s",
        "p99 s",
        "max s",
        "floor",
        "ratio"
    )
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.total();
        let attempts = float(total.answered + total.throttled) / float(total.answered).max(1.0);
        write!(
            f,
            "{:>5} {:<17} {:>6} {:>9} {attempts:>8.1} {:>6} {:>6.1}",
            self.nodes, self.scenario, total.answered, total.throttled, self.peak, self.mean
        )?;
        if self.served.is_empty() {
            write!(f, " {:>6} {:>6} {:>6} {:>6} {:>6}", "-", "-", "-", "-", "-")?;
        } else {
            for percent in [50, 99, 100] {
                write!(f, " {:>6.0}", self.percentile(percent).as_secs_f64())?;
            }
            let floor = self.floor().as_secs_f64();
            write!(f, " {floor:>6.0} {:>6.2}", self.ratio())?;
        }
        writeln!(f, "  {}", if self.passes() { "met" } else { "MISSED" })?;
        for (action, tally) in &self.calls {
            let Tally {
                answered,
                throttled,
            } = tally;
            writeln!(f, "      {action:<32} {answered:>6} {throttled:>9}")?;
        }
        Ok(())
    }
}

/// Counts of calls are far below the 52 bits of a float.
fn float(n: usize) -> f64 {
    u32::try_from(n).map_or(f64::INFINITY, f64::from)
}
