//! Streams of random numbers, one for each purpose: one more number for the workload does not change who crashes when.

use vpc_sim::random::Rng;

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

impl Purpose {
    /// The stream for this purpose. The simulated EC2 takes its own from the first three numbers of the same seed.
    #[must_use]
    pub const fn stream(self, seed: u64) -> Rng {
        Rng::new(seed, 100 + self as u64)
    }
}
