//! The pool's state in the words of Kubernetes: Node conditions, and the events at their changes. Pure.

use planner::{Snapshot, placement::NoClass};
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
    /// The cause, without times: these change with every try.
    pub cause: String,
    /// When EC2 is asked again, if the cause is EC2's.
    pub until: Option<String>,
}

impl Condition {
    /// Whether a reader would learn something.
    pub fn differs(&self, other: &Self) -> bool {
        let key = |of: &Self| (of.is_true, of.reason, of.cause.clone());
        key(self) != key(other)
    }

    /// For people.
    pub fn message(&self) -> String {
        match &self.until {
            None => self.cause.clone(),
            Some(until) => format!("{}; EC2 is asked again at {until}", self.cause),
        }
    }

    /// As the API server takes it. `changed`: since when the status has been what it is.
    pub fn to_json(&self, now: &str, changed: &str) -> Value {
        json!({
            "type": self.kind,
            "status": if self.is_true { "True" } else { "False" },
            "reason": self.reason,
            "message": self.message(),
            "lastHeartbeatTime": now,
            "lastTransitionTime": changed,
        })
    }
}

/// What the runtime knows of this network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announced {
    /// Its network configuration is not there yet.
    No,
    /// The runtime uses this file of another network for new pods.
    Behind(String),
    Yes,
}

/// Whether pods can have a network here.
pub(super) fn network(announced: &Announced) -> Condition {
    let (reason, cause) = match announced {
        Announced::Yes => ("HawserIsUp", "Hawser serves pods on this node".to_owned()),
        Announced::No => (
            "HawserIsStarting",
            "Hawser has not served pods on this node yet".to_owned(),
        ),
        Announced::Behind(file) => (
            "AnotherNetworkIsFirst",
            format!(
                "the container runtime uses the network configuration {file} for new pods, because it sorts before \
                 Hawser's; remove that file, or the program that writes it"
            ),
        ),
    };
    Condition {
        kind: NETWORK_UNAVAILABLE,
        is_true: *announced != Announced::Yes,
        reason,
        cause,
        until: None,
    }
}

/// Ours too. Only nodes that have missed a subnet have it.
pub(super) const NO_POD_SUBNET: &str = "PodSubnetMissing";

/// Whether there is no subnet in which an ENI may be created: a missing or wrong ENIConfig, or tags.
pub(super) fn subnet(pool: &Snapshot) -> Condition {
    let (is_true, reason, cause) = match &pool.places.none {
        Some(none) => (true, "NoSubnetForENIs", nowhere(none)),
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
        cause,
        until: None,
    }
}

fn nowhere(none: &NoClass) -> String {
    format!("no ENI can be created: {}; {}", none.why, none.remedy)
}

/// Whether a new pod would find no address, and why.
pub(super) fn pressure(pool: &Snapshot, now: Wall) -> Condition {
    let totals = &pool.totals;
    let spare = totals.free + totals.cooling + totals.incoming;
    let lack = (spare == 0 && pool.inventoried)
        .then(|| lack(pool, now))
        .flatten();
    let is_true = lack.is_some();
    let (reason, cause, until) =
        lack.unwrap_or_else(|| ("AddressesAvailable", "pods get addresses".to_owned(), None));
    Condition {
        kind: ADDRESS_PRESSURE,
        is_true,
        reason,
        cause,
        until,
    }
}

/// Why a pool without a spare address does not grow: reason, cause, and when EC2 is asked again.
fn lack(pool: &Snapshot, now: Wall) -> Option<(&'static str, String, Option<String>)> {
    let totals = &pool.totals;
    if totals.reserved + totals.assigned >= pool.limit.addresses {
        let cause = format!("every pod address is in use: {}", pool.limit.derivation);
        return Some(("PodLimitReached", cause, None));
    }
    if let Some(none) = &pool.places.none {
        return Some(("NoSubnetForENIs", nowhere(none), None));
    }
    let exhausted = pool
        .subnets
        .iter()
        .find_map(|view| Some((&view.subnet, view.exhausted_for?)));
    let (reason, cause, retry_in) = if let Some((subnet, retry_in)) = exhausted {
        let cause = format!("subnet {subnet} has no free address");
        ("SubnetExhausted", cause, retry_in)
    } else if let Some((action, retry_in)) = pool.denied.first() {
        (
            "PermissionDenied",
            format!("IAM denies {action}"),
            *retry_in,
        )
    } else {
        let refused = pool.refused.iter().find(|refused| refused.stops_growth)?;
        let cause = format!("EC2 refuses {}", refused.message);
        ("RefusedByEC2", cause, refused.retry_in)
    };
    Some((reason, cause, Some(now.after(retry_in))))
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
        "message": condition.message(),
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
            condition.message().contains("27 pod addresses"),
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
            condition.message().contains("subnet-1 has no free"),
            "{condition:?}"
        );
        assert!(condition.message().ends_with(&until), "{condition:?}");
        pool.subnets[0].exhausted_for = Some(Duration::from_secs(30));
        let later = pressure(&pool, now);
        assert!(!later.differs(&condition));
        pool.subnets[0].subnet = "subnet-2".into();
        assert!(pressure(&pool, now).differs(&condition), "another cause");
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
        assert!(condition.message().ends_with("does not exist; create it"));
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
        assert!(
            condition
                .message()
                .contains("NetworkInterfaceLimitExceeded")
        );
        pool.refused = vec![planner::snapshot::RefusedView {
            stops_growth: false,
            ..refused
        }];
        assert!(!pressure(&pool, wall()).is_true);
    }

    #[test]
    fn the_network_is_unavailable_until_the_runtime_knows_of_it() {
        let [starting, up] = [Announced::No, Announced::Yes].map(|announced| network(&announced));
        assert!(starting.is_true);
        assert!(!up.is_true && up.differs(&starting));
        let behind = network(&Announced::Behind("05-other.conflist".into()));
        assert!(behind.is_true && behind.differs(&starting));
        assert!(behind.message().contains("05-other.conflist"), "{behind:?}");
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
