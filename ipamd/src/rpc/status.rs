//! The answer to STATUS: whether this daemon serves ADDs.

use planner::Snapshot;
use proto::{refusal::Refusal, v1::Reason};

use crate::sandbox::refusals;

/// Returns why this daemon serves no ADDs. None: it serves them.
///
/// A failing STATUS makes the node NotReady, and Kubernetes then evicts running pods. Therefore, a node stays Ready if its
/// subnet has no free address, its pod limit is reached, or its role lacks a permission: each ADD returns its own error.
#[must_use]
pub fn not_serving(pool: &Snapshot) -> Option<Refusal> {
    pool.stopping.then(|| refusals::stopping(Reason::Stopping))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use planner::{Config, Event, Mono, Planner, limits};

    use super::*;

    fn snapshot() -> Snapshot {
        let instance = limits::lookup("t3.small").expect("in the table").clone();
        Planner::new(
            Config::default(),
            instance,
            planner::Placement::like_primary("subnet-1".into()),
            1,
        )
        .snapshot(Mono::ZERO)
    }

    #[test]
    fn a_node_that_can_give_no_address_is_ready() {
        let mut pool = snapshot();
        assert_eq!(pool.totals.free, 0);
        pool.denied = vec![("ec2:CreateNetworkInterface".into(), Duration::from_secs(60))];
        assert!(not_serving(&pool).is_none());
        pool.limit.addresses = 0;
        assert!(not_serving(&pool).is_none());
    }

    #[test]
    fn a_daemon_that_stops_is_not() {
        let instance = limits::lookup("t3.small").expect("in the table").clone();
        let mut planner = Planner::new(
            Config::default(),
            instance,
            planner::Placement::like_primary("subnet-1".into()),
            1,
        );
        let stopping = Event::Node {
            schedulable: true,
            stopping: true,
        };
        planner.on(stopping, Mono::ZERO);
        let refusal = not_serving(&planner.snapshot(Mono::ZERO)).expect("it stops");
        assert_eq!(refusal.reason, Reason::Stopping);
    }
}
