//! The three traces: when pods are created and how long they run. Owns the random numbers, so that a trace is the same
//! for every policy.

use std::time::Duration;

/// SplitMix64 (Steele, Lea and Flood 2014): any seed is good.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In 0..1, never 0.
    fn unit(&mut self) -> f64 {
        let part = u32::try_from(self.next() >> 32).unwrap_or(u32::MAX);
        (f64::from(part) + 1.0) / (f64::from(u32::MAX) + 2.0)
    }

    pub fn between(&mut self, least: f64, most: f64) -> Duration {
        Duration::from_secs_f64(least + (most - least) * self.unit())
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * self.unit().ln()
    }

    fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).unwrap_or(0)
    }
}

/// One pod.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Since the start of the trace.
    pub comes: Duration,
    /// From its grant to its deletion.
    pub stays: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// Twenty pods on average: one new pod per minute, each for twenty minutes.
    Steady,
    /// Ten permanent pods, and at 2:00 each night a hundred within about five seconds, for twenty minutes each.
    Nightly,
    /// Ten permanent pods; from 8:00 to 18:00 a pipeline every four minutes, of two to sixteen pods within two seconds,
    /// for one to nine minutes each.
    Ci,
}

impl Trace {
    pub const ALL: [Self; 3] = [Self::Steady, Self::Nightly, Self::Ci];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Steady => "steady",
            Self::Nightly => "nightly batch of 100",
            Self::Ci => "CI-like churn",
        }
    }

    /// The pods of `days`, by creation time.
    pub fn pods(self, days: u32, seed: u64) -> Vec<Stay> {
        let mut rng = Rng::new(seed);
        let mut pods = match self {
            Self::Steady => steady(days, &mut rng),
            Self::Nightly => nightly(days, &mut rng),
            Self::Ci => ci(days, &mut rng),
        };
        pods.sort_by_key(|pod| pod.comes);
        pods
    }
}

const DAY: f64 = 86_400.0;

/// The length of a trace of `days`.
pub const fn days(days: u32) -> Duration {
    Duration::from_secs(days as u64 * 86_400)
}

/// `count` permanent pods on a new node, which come within `seconds`.
pub fn cold(count: u32, seconds: f64, seed: u64) -> Vec<Stay> {
    let mut rng = Rng::new(seed);
    let mut pods: Vec<_> = (0..count)
        .map(|_| pod(5.0 + seconds * rng.unit(), DAY))
        .collect();
    pods.sort_by_key(|pod| pod.comes);
    pods
}

fn pod(comes: f64, stays: f64) -> Stay {
    Stay {
        comes: Duration::from_secs_f64(comes),
        stays: Duration::from_secs_f64(stays),
    }
}

fn residents(days: u32, rng: &mut Rng) -> Vec<Stay> {
    (0..10)
        .map(|_| pod(60.0 + 30.0 * rng.unit(), DAY * f64::from(days + 1)))
        .collect()
}

fn steady(days: u32, rng: &mut Rng) -> Vec<Stay> {
    let mut pods = Vec::new();
    let mut at = 60.0;
    while at < DAY * f64::from(days) {
        pods.push(pod(at, rng.exponential(1200.0)));
        at += rng.exponential(60.0);
    }
    pods
}

fn nightly(days: u32, rng: &mut Rng) -> Vec<Stay> {
    let mut pods = residents(days, rng);
    for day in 0..days {
        let mut at = DAY * f64::from(day) + 2.0 * 3600.0;
        for _ in 0..100 {
            at += rng.exponential(0.05);
            pods.push(pod(at, 1200.0 * (0.75 + 0.5 * rng.unit())));
        }
    }
    pods
}

fn ci(days: u32, rng: &mut Rng) -> Vec<Stay> {
    let mut pods = residents(days, rng);
    for day in 0..days {
        let evening = DAY * f64::from(day) + 18.0 * 3600.0;
        let mut at = DAY * f64::from(day) + 8.0 * 3600.0;
        while at < evening {
            for _ in 0..2 + rng.below(15) {
                pods.push(pod(at + 2.0 * rng.unit(), 60.0 + 480.0 * rng.unit()));
            }
            at += rng.exponential(240.0);
        }
    }
    pods
}
