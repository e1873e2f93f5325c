//! The two clocks, each read in this file only: boot time for decisions, wall time for people.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use nix::time::{ClockId, clock_gettime};
use planner::Mono;

/// Where the pool's task gets its time from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// [`now`]: a node's.
    Boot,
    /// Since this instant of tokio's clock, which a simulation pauses and moves.
    Runtime(tokio::time::Instant),
}

impl Clock {
    #[must_use]
    pub fn now(self) -> Mono {
        match self {
            Self::Boot => now(),
            Self::Runtime(epoch) => Mono::from_epoch(epoch.elapsed()),
        }
    }
}

/// Time since the machine booted, suspended time included: it survives a restart of the daemon, so a cooldown that was
/// written down before one still means the same after it, and no change of the wall clock can stretch it.
#[must_use]
pub fn now() -> Mono {
    let time =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Mono::from_epoch(Duration::from(time))
}

/// A moment of the wall clock, for tags and records that people read.
#[derive(Clone, Copy, Debug)]
pub struct Wall(std::time::SystemTime);

impl Wall {
    /// This moment, less `age`, as RFC 3339.
    #[must_use]
    pub fn before(self, age: Duration) -> String {
        let then = DateTime::from(self.0.checked_sub(age).unwrap_or(self.0));
        // Formatting fails only for years that the format cannot hold.
        then.fmt(Format::DateTime).unwrap_or_default()
    }
}

/// One moment by both clocks: what happened near it can be told in wall time that no step of the wall clock tears apart.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    pub mono: Mono,
    pub wall: std::time::SystemTime,
}

impl Anchor {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        Self {
            mono: now(),
            wall: wall().0,
        }
    }

    /// Another moment, by the wall clock as it stood here.
    #[must_use]
    pub fn wall_at(self, moment: Mono) -> std::time::SystemTime {
        let later = self.wall + moment.since(self.mono);
        later
            .checked_sub(self.mono.since(moment))
            .unwrap_or(self.wall)
    }
}

/// The wall clock.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall() -> Wall {
    Wall(std::time::SystemTime::now())
}

/// The wall clock as RFC 3339.
#[must_use]
pub fn wall_rfc3339() -> String {
    wall().before(Duration::ZERO)
}

/// The wall clock in seconds since 1970, for comparing it with others'.
#[must_use]
pub fn wall_seconds() -> i64 {
    DateTime::from(wall().0).secs()
}
