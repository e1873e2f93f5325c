//! How long each kind of failure keeps its calls back.

use std::time::Duration;

/// The first delay and the longest delay. Each further failure doubles the delay.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub first: Duration,
    pub cap: Duration,
}

const fn pace(first_ms: u64, cap_s: u64) -> Pace {
    Pace {
        first: Duration::from_millis(first_ms),
        cap: Duration::from_secs(cap_s),
    }
}

/// If the daemon's limiter does not say how long to wait.
pub(crate) const THROTTLED: Pace = pace(1_000, 60);
pub(crate) const TRANSIENT: Pace = pace(500, 30);
/// At most two minutes: another node may free addresses at any time (ec2-and-faults §7 row 11).
pub(crate) const EXHAUSTED: Pace = pace(10_000, 120);
/// A block of sixteen becomes free only when a whole group of pods has left.
pub(crate) const FRAGMENTED: Pace = pace(120_000, 600);
/// Somebody has to change an IAM policy. I4 bounds it from above.
pub(crate) const DENIED: Pace = pace(60_000, 300);
/// Somebody has to change the account, a quota, a setting or another object.
pub(crate) const REFUSED: Pace = pace(60_000, 300);
pub(crate) const LIMIT: Pace = pace(60_000, 300);
pub(crate) const HOST: Pace = pace(10_000, 120);
/// The next step of one ENI.
pub(crate) const STEP: Pace = pace(1_000, 30);
/// EC2's list again, after a call for it failed. It is short because waiting pods may depend on it.
pub(crate) const DESCRIBE: Pace = pace(1_000, 15);
pub(crate) const TERMINATION: Pace = pace(30_000, 600);
