//! Streams of random numbers, one per purpose: one more number for the workload does not change the crashes.

use vpc_sim::random::Rng;

/// The purpose of a stream.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    Scenario = 1,
    Calls,
    Lists,
    Host,
    Pods,
    Planner,
    Family,
    Places,
}

impl Purpose {
    /// The stream for this purpose. The simulated EC2 takes its own from the first three numbers of the same seed.
    #[must_use]
    pub const fn stream(self, seed: u64) -> Rng {
        Rng::new(seed, 100 + self as u64)
    }
}
