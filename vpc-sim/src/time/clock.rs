//! The only place that reads a clock. World time is the wall time at start plus the time of tokio's or the system's
//! monotonic clock, so it never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    epoch: Duration,
}

/// Time since the Unix epoch, for events before a world is served.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reading of wall time")]
pub fn wall_clock() -> Duration {
    // A clock before 1970 is treated as 1970: nothing here compares it with other clocks.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the monotonic origin that belongs to that reading"
    )]
    pub fn start() -> Self {
        Self {
            epoch: wall_clock(),
            started: Instant::now(),
        }
    }

    /// Time since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.epoch + self.started.elapsed()
    }
}
