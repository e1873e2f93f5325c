//! Waiting in real time for what other processes and the kernel do.

use std::time::{Duration, Instant};

/// Waits until `condition` holds, looking again every few milliseconds, at most `limit`.
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
