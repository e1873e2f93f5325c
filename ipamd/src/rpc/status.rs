//! The answer to STATUS.

use std::time::Duration;

use planner::Snapshot;
use proto::refusal::Refusal;

use crate::sandbox::refusals;

/// Why an ADD would certainly fail now, if it would.
///
/// A node that is full is healthy: a failing STATUS would make it NotReady and evict its pods. A node that waits for
/// EC2 but may still grow is healthy too.
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
