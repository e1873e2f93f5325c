//! The pool's state in the words of Kubernetes: Node conditions, and the events at their changes. Pure.

use planner::Snapshot;
use serde_json::{Value, json};

use crate::runtime::clock::Wall;

/// Kubernetes' own condition: other components keep pods off a node on which it is true.
pub(super) const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";
/// Ours, named like the kubelet's `MemoryPressure`. No scheduler acts on it; it is for people and alerts.
pub(super) const ADDRESS_PRESSURE: &str = "PodAddressPressure";

/// One condition of the Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub kind: &'static str,
    pub is_true: bool,
    pub reason: &'static str,
    pub message: String,
}

impl Condition {
    /// Whether a reader would learn something: the message alone contains times, which change with every try.
    pub fn differs(&self, other: &Self) -> bool {
        (self.is_true, self.reason) != (other.is_true, other.reason)
    }

    /// As the API server takes it. `changed`: since when the status has been what it is.
    pub fn to_json(&self, now: &str, changed: &str) -> Value {
        json!({
            "type": self.kind,
            "status": if self.is_true { "True" } else { "False" },
            "reason": self.reason,
            "message": self.message,
            "lastHeartbeatTime": now,
            "lastTransitionTime": changed,
        })
    }
}

/// Whether pods can have a network here. `announced`: the network configuration is in the runtime's directory.
pub(super) fn network(announced: bool) -> Condition {
    let (reason, message) = if announced {
        ("HawserIsUp", "Hawser serves pods on this node")
    } else {
        (
            "HawserIsStarting",
            "Hawser has not served pods on this node yet",
        )
    };
    Condition {
        kind: NETWORK_UNAVAILABLE,
        is_true: !announced,
        reason,
        message: message.to_owned(),
    }
}

/// Ours too. Only nodes that have missed a subnet have it.
pub(super) const NO_POD_SUBNET: &str = "PodSubnetMissing";

/// Whether there is no subnet in which an ENI may be created: a missing or wrong ENIConfig, or tags.
pub(super) fn subnet(pool: &Snapshot) -> Condition {
    let (is_true, reason, message) = match &pool.places.none {
        Some(none) => (
            true,
            "NoSubnetForENIs",
            format!("no ENI can be created: {}; {}", none.why, none.remedy),
        ),
        None => (
            false,
            "SubnetForENIs",
            format!("ENIs can be created: {}", pool.places.class),
        ),
    };
    Condition {
        kind: NO_POD_SUBNET,
        is_true,
        reason,
        message,
    }
}

/// Whether a new pod would find no address, and why.
pub(super) fn pressure(pool: &Snapshot, now: Wall) -> Condition {
    let totals = &pool.totals;
    let spare = totals.free + totals.cooling + totals.incoming;
    let full = totals.reserved + totals.assigned >= pool.limit.addresses;
    let exhausted = pool
        .subnets
        .iter()
        .find_map(|view| Some((&view.subnet, view.exhausted_for?)));
    let (is_true, reason, message) = if spare > 0 || !pool.inventoried {
        (false, "AddressesAvailable", "pods get addresses".to_owned())
    } else if full {
        let message = format!("every pod address is in use: {}", pool.limit.derivation);
        (true, "PodLimitReached", message)
    } else if let Some(none) = &pool.places.none {
        let message = format!("no ENI can be created: {}; {}", none.why, none.remedy);
        (true, "NoSubnetForENIs", message)
    } else if let Some((subnet, retry_in)) = exhausted {
        let until = now.after(retry_in);
        let message = format!("subnet {subnet} has no free address; EC2 is asked again at {until}");
        (true, "SubnetExhausted", message)
    } else if let Some((action, retry_in)) = pool.denied.first() {
        let until = now.after(*retry_in);
        let message = format!("IAM denies {action}; EC2 is asked again at {until}");
        (true, "PermissionDenied", message)
    } else if let Some(refused) = pool.refused.iter().find(|refused| refused.stops_growth) {
        let until = now.after(refused.retry_in);
        let message = format!(
            "EC2 refuses {}; EC2 is asked again at {until}",
            refused.message
        );
        (true, "RefusedByEC2", message)
    } else {
        (false, "AddressesAvailable", "pods get addresses".to_owned())
    };
    Condition {
        kind: ADDRESS_PRESSURE,
        is_true,
        reason,
        message,
    }
}

/// The event for a change of [`pressure`]. Events of a Node are in namespace `default`, and name the Node as its uid, as
/// the kubelet's do.
pub(super) fn event(condition: &Condition, node: &str, now: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": { "generateName": format!("{node}."), "namespace": "default" },
        "involvedObject": { "apiVersion": "v1", "kind": "Node", "name": node, "uid": node },
        "type": if condition.is_true { "Warning" } else { "Normal" },
        "reason": condition.reason,
        "message": condition.message,
        "source": { "component": "hawser", "host": node },
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use planner::{Config, Mono, Planner, limits};

    use super::*;
    use crate::runtime::clock::wall;

    fn pool() -> Snapshot {
        let instance = limits::lookup("m5.large").unwrap().clone();
        let planner = Planner::new(
            Config::default(),
            instance,
            planner::Placement::like_primary("subnet-1".into()),
            1,
        );
        let mut pool = planner.snapshot(Mono::ZERO);
        pool.inventoried = true;
        pool
    }

    #[test]
    fn a_full_node_says_by_which_limit() {
        let mut pool = pool();
        pool.totals.assigned = pool.limit.addresses;
        let condition = pressure(&pool, wall());
        assert_eq!(
            (condition.is_true, condition.reason),
            (true, "PodLimitReached")
        );
        assert!(
            condition.message.contains("27 pod addresses"),
            "{condition:?}"
        );
        pool.totals.cooling = 1;
        assert!(!pressure(&pool, wall()).is_true, "an address comes back");
    }

    #[test]
    fn an_exhausted_subnet_is_named_with_the_time_of_the_next_try() {
        let mut pool = pool();
        pool.subnets = vec![planner::snapshot::SubnetView {
            subnet: "subnet-1".into(),
            exhausted_for: Some(Duration::from_secs(60)),
            fragmented_for: None,
            refused_for: None,
        }];
        let now = wall();
        let condition = pressure(&pool, now);
        assert_eq!(condition.reason, "SubnetExhausted");
        let until = now.after(Duration::from_secs(60));
        assert!(
            condition.message.contains("subnet-1 has no free"),
            "{condition:?}"
        );
        assert!(condition.message.ends_with(&until), "{condition:?}");
        let later = pressure(&pool, now);
        assert!(!later.differs(&condition));
        pool.inventoried = false;
        assert!(!pressure(&pool, now).is_true, "nothing is known yet");
    }

    #[test]
    fn a_missing_subnet_is_named_with_what_helps() {
        let mut pool = pool();
        assert!(!subnet(&pool).is_true);
        pool.places.none = Some(planner::placement::NoClass {
            why: "the ENIConfig \"a\" does not exist".into(),
            remedy: "create it".into(),
        });
        let condition = subnet(&pool);
        assert_eq!(
            (condition.is_true, condition.reason),
            (true, "NoSubnetForENIs")
        );
        assert!(condition.message.ends_with("does not exist; create it"));
        assert_eq!(pressure(&pool, wall()).reason, "NoSubnetForENIs");
        pool.totals.free = 1;
        assert!(
            !pressure(&pool, wall()).is_true,
            "pods still find addresses"
        );
    }

    #[test]
    fn what_ec2_refuses_is_named_if_the_pool_cannot_grow_without_it() {
        let mut pool = pool();
        let refused = planner::snapshot::RefusedView {
            action: "CreateNetworkInterface",
            denied: None,
            message: "CreateNetworkInterface: NetworkInterfaceLimitExceeded: no".into(),
            remedy: String::new(),
            at: Mono::ZERO,
            retry_in: Duration::from_secs(60),
            stops_growth: true,
        };
        pool.refused = vec![refused.clone()];
        let condition = pressure(&pool, wall());
        assert_eq!(
            (condition.is_true, condition.reason),
            (true, "RefusedByEC2")
        );
        assert!(condition.message.contains("NetworkInterfaceLimitExceeded"));
        pool.refused = vec![planner::snapshot::RefusedView {
            stops_growth: false,
            ..refused
        }];
        assert!(!pressure(&pool, wall()).is_true);
    }

    #[test]
    fn the_network_is_unavailable_until_the_runtime_knows_of_it() {
        assert!(network(false).is_true);
        let up = network(true);
        assert!(!up.is_true && up.differs(&network(false)));
    }

    #[test]
    fn an_event_is_a_warning_when_addresses_run_out() {
        let mut pool = pool();
        pool.totals.assigned = pool.limit.addresses;
        let full = event(&pressure(&pool, wall()), "n", "2026-01-01T00:00:00Z");
        assert_eq!(full["type"], "Warning");
        assert_eq!(full["involvedObject"]["name"], "n");
        pool.totals.free = 1;
        let well = event(&pressure(&pool, wall()), "n", "2026-01-01T00:00:00Z");
        assert_eq!(
            (&well["type"], &well["reason"]),
            (&"Normal".into(), &"AddressesAvailable".into())
        );
    }
}
