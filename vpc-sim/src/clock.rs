//! The one place that reads a clock. World time is wall time at the start plus what tokio's or the system's monotonic
//! clock has counted since, so that it never jumps.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
    epoch: Duration,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the binary's one reading of wall time, and its monotonic origin"
    )]
    pub fn start() -> Self {
        // A clock before 1970 is as good as 1970: nothing here compares it with the world outside.
        let epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            started: Instant::now(),
            epoch,
        }
    }

    /// Since the Unix epoch.
    pub fn now(&self) -> Duration {
        self.epoch + self.started.elapsed()
    }
}
