//! The planner's time value. The planner has no clock: the daemon or a simulation passes the time in.

use std::{
    ops::{Add, Sub},
    time::Duration,
};

/// Time since the daemon's epoch. It is monotonic and totally ordered, on a node and in a simulation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(Duration);

impl Mono {
    pub const ZERO: Self = Self(Duration::ZERO);

    #[must_use]
    pub const fn from_epoch(since: Duration) -> Self {
        Self(since)
    }

    #[must_use]
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// How long ago `earlier` was. Zero if it is in the future.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        Self(self.0.saturating_add(rhs))
    }
}

impl Sub<Duration> for Mono {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        Self(self.0.saturating_sub(rhs))
    }
}
