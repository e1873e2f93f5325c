//! The one place that reads a clock. World time is wall time at the start plus what tokio's or the system's monotonic
//! clock has counted since, so that it never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    epoch: Duration,
}

/// Time since the Unix epoch, for what happens in a world before it is served.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the one reading of wall time")]
pub fn wall_clock() -> Duration {
    // A clock before 1970 is as good as 1970: nothing here compares it with the world outside.
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

    /// Since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.epoch + self.started.elapsed()
    }
}
