//! Waiting in real time for other processes and the kernel.

use std::time::{Duration, Instant};

/// Waits until `condition` is true, checking every few milliseconds, at most `limit`.
#[expect(clippy::disallowed_methods, reason = "the lab waits in real time")]
pub fn eventually(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if begun.elapsed() >= limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
