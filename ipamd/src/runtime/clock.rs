//! The two clocks, which only this file reads: boot time for decisions, wall time for humans.

use std::time::Duration;

use aws_smithy_types::date_time::{DateTime, Format};
use nix::time::{ClockId, clock_gettime};
use planner::Mono;

/// The clock of the pool's task.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// [`now`], on a node.
    Boot,
    /// Since this instant of tokio's clock, which a simulation pauses and advances.
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

/// Time since the machine booted, including suspended time. It survives a restart of the daemon, so a recorded cooldown
/// has the same meaning afterwards, and a change of the wall clock does not affect it.
#[must_use]
pub fn now() -> Mono {
    let time =
        clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has had CLOCK_BOOTTIME since 2.6.39");
    Mono::from_epoch(Duration::from(time))
}

/// A time of the wall clock, for tags and records for humans.
#[derive(Clone, Copy, Debug)]
pub struct Wall(std::time::SystemTime);

impl Wall {
    /// This time plus `span`, as RFC 3339.
    #[must_use]
    pub fn after(self, span: Duration) -> String {
        let then = DateTime::from(self.0.checked_add(span).unwrap_or(self.0));
        then.fmt(Format::DateTime).unwrap_or_default()
    }

    /// This time minus `age`, as RFC 3339.
    #[must_use]
    pub fn before(self, age: Duration) -> String {
        let then = DateTime::from(self.0.checked_sub(age).unwrap_or(self.0));
        // Formatting fails only for years outside of the format.
        then.fmt(Format::DateTime).unwrap_or_default()
    }
}

/// One point in time in both clocks: later times can be converted to wall time consistently, even if the wall clock is
/// changed.
#[derive(Clone, Copy, Debug)]
pub struct Anchor {
    pub mono: Mono,
    pub wall: std::time::SystemTime,
}

impl Anchor {
    /// The current time.
    #[must_use]
    pub fn now() -> Self {
        Self {
            mono: now(),
            wall: wall().0,
        }
    }

    /// Another time in wall time, relative to this one.
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

/// The wall clock in nanoseconds since 1970, as programs in Go write it.
#[must_use]
pub fn wall_nanoseconds() -> i64 {
    let since = wall().0.duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
    })
}

/// The wall clock in seconds since 1970, for comparison with other clocks.
#[must_use]
pub fn wall_seconds() -> i64 {
    DateTime::from(wall().0).secs()
}
