//! Counts EC2 calls for the daemon's limit (I9).

use std::{collections::VecDeque, time::Duration};

const MINUTE: Duration = Duration::from_secs(60);

/// Recent calls, and the total.
#[derive(Debug, Default)]
pub struct Budget {
    recent: VecDeque<Duration>,
    total: u64,
    /// The maximum in any minute.
    peak: usize,
}

impl Budget {
    /// One more call; returns how many there were within the last minute.
    pub fn spend(&mut self, now: Duration) -> usize {
        self.total += 1;
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|at| *at + MINUTE < now) {
            self.recent.pop_front();
        }
        self.peak = self.peak.max(self.recent.len());
        self.recent.len()
    }

    /// Resets the last minute: a new daemon starts with a new allowance.
    pub fn restart(&mut self) {
        self.recent.clear();
    }

    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    #[must_use]
    pub const fn peak(&self) -> usize {
        self.peak
    }
}
