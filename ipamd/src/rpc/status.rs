//! The answer to STATUS.

use std::time::Duration;

use planner::Snapshot;
use proto::refusal::Refusal;

use crate::sandbox::refusals;

/// Why an ADD sent now would surely fail, if it would.
///
/// A node whose pods fill it is healthy: failing STATUS would turn it NotReady and have its pods evicted. So is one
/// that waits for EC2 but may yet grow.
#[must_use]
pub fn cannot_add(pool: &Snapshot) -> Option<Refusal> {
    if pool.stopping {
        return Some(refusals::of_pool(planner::Refusal::Stopping));
    }
    let full = pool.totals.reserved + pool.totals.assigned >= pool.limit.addresses;
    if full || pool.totals.free + pool.totals.cooling + pool.totals.incoming > 0 {
        return None;
    }
    if let Some((action, _)) = pool.denied.first() {
        return Some(refusals::of_pool(planner::Refusal::Denied {
            action: action.clone(),
        }));
    }
    let exhausted = pool
        .subnets
        .iter()
        .find_map(|s| Some((s.subnet.clone(), s.exhausted_for?)));
    exhausted.map(|(subnet, retry_in)| {
        refusals::of_pool(planner::Refusal::Exhausted {
            subnet,
            since: Duration::ZERO,
            retry_in,
        })
    })
}
