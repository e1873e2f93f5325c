//! Seeded randomness, split by purpose: one more draw in the workload does not change who crashes when.

use std::time::Duration;

use vpc_sim::ids::Rng;

/// What a stream of numbers is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    Scenario = 1,
    Calls,
    Lists,
    Host,
    Pods,
    Planner,
    Family,
}

/// One purpose's stream.
#[derive(Clone, Debug)]
pub struct Dice(Rng);

impl Dice {
    #[must_use]
    pub const fn new(seed: u64, purpose: Purpose) -> Self {
        // World draws from purposes 1 to 3 of the same seed.
        Self(Rng::new(seed, 100 + purpose as u64))
    }

    pub const fn next(&mut self) -> u64 {
        self.0.next()
    }

    /// Below `bound`; 0 if there is nothing below it.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or(0)
    }

    /// An index into something of `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    pub fn percent(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.index(from.len())]
    }

    /// Whole milliseconds, both ends included: timers have no finer grain.
    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from + 1))
    }

    pub fn seconds(&mut self, from: u64, to: u64) -> Duration {
        self.millis(from * 1000, to * 1000)
    }
}
