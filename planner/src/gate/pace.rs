//! How long each kind of failure keeps its calls back.

use std::time::Duration;

/// First delay and longest delay; each failure in a row doubles.
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

/// When the shell does not say how long to stay away.
pub(crate) const THROTTLED: Pace = pace(1_000, 60);
pub(crate) const TRANSIENT: Pace = pace(500, 30);
/// ec2-and-faults §7 row 11: not above two minutes, for a neighbour may free addresses any time.
pub(crate) const EXHAUSTED: Pace = pace(10_000, 120);
/// Blocks of sixteen come back only as whole groups of pods leave.
pub(crate) const FRAGMENTED: Pace = pace(120_000, 600);
/// Somebody has to edit a policy; I4 bounds it from above.
pub(crate) const DENIED: Pace = pace(60_000, 300);
pub(crate) const LIMIT: Pace = pace(60_000, 300);
pub(crate) const HOST: Pace = pace(10_000, 120);
/// One ENI's own next step.
pub(crate) const STEP: Pace = pace(1_000, 30);
/// Asking for EC2's list again after it did not come: what pods wait for may hang on it. See [`HASTE`].
pub(crate) const DESCRIBE: Pace = pace(1_000, 15);
pub(crate) const TERMINATION: Pace = pace(30_000, 600);
