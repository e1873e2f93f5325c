//! The pool's snapshot in other people's terms: the gRPC message, the gauges, and the answer to STATUS.

use ipnet::Ipv4Net;
use planner::{
    Observed, Snapshot,
    event::Bond,
    snapshot::{AddressState, AddressView},
};
use proto::{refusal::Refusal, v1};

use crate::{metrics::PoolGauges, refusals};

/// For the command line.
#[must_use]
pub fn to_wire(pool: &Snapshot, instance_id: &str, instance_type: &str) -> v1::Snapshot {
    v1::Snapshot {
        instance_id: instance_id.to_owned(),
        instance_type: instance_type.to_owned(),
        pod_limit: pool.limit.addresses,
        pod_limit_why: pool.limit.derivation.clone(),
        enis: pool.enis.iter().map(eni).collect(),
        waiting: pool.totals.waiting,
    }
}

fn eni(eni: &planner::snapshot::EniView) -> v1::Eni {
    v1::Eni {
        id: eni.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: format!("{:?}", eni.phase).to_lowercase(),
        device_index: eni.device.unwrap_or_default().into(),
        primary: eni
            .primary_address
            .map(|address| address.octets().into())
            .unwrap_or_default(),
        mac: eni.mac.0.into(),
        addresses: eni.addresses.iter().map(address).collect(),
    }
}

fn address(view: &planner::snapshot::AddressView) -> v1::Address {
    v1::Address {
        address: view.address.octets().into(),
        state: name(view.state).to_owned(),
        sandbox: view.sandbox.as_ref().map(|s| v1::Sandbox {
            network: s.network.clone(),
            container_id: s.container_id.clone(),
            ifname: s.ifname.clone(),
        }),
        pod: view.pod.as_ref().map(|p| v1::Pod {
            namespace: p.namespace.clone(),
            name: p.name.clone(),
            uid: p.uid.clone(),
        }),
    }
}

const fn name(state: AddressState) -> &'static str {
    match state {
        AddressState::Free => "free",
        AddressState::Reserved => "reserved",
        AddressState::Assigned => "assigned",
        AddressState::Cooling => "cooling",
        AddressState::Quarantined => "quarantined",
        AddressState::Releasing => "releasing",
    }
}

/// For Prometheus.
#[must_use]
pub fn to_gauges(pool: &Snapshot) -> PoolGauges {
    let totals = pool.totals;
    PoolGauges {
        enis: totals.enis,
        eni_max: totals.max_enis,
        waiting: totals.waiting,
        by_state: [
            ("free", totals.free),
            ("reserved", totals.reserved),
            ("assigned", totals.assigned),
            ("cooling", totals.cooling),
            ("quarantined", totals.quarantined),
            ("releasing", totals.releasing),
        ],
    }
}

/// The ENIs that serve pods, in EC2's terms, for keeping over a restart. What is on its way in, on its way out or in
/// doubt is left out: a daemon that starts grants from these before EC2 has confirmed anything. Pods on the rest are
/// in records of their own.
#[must_use]
pub fn observed(pool: &Snapshot) -> Vec<Observed> {
    let unsure = |view: &AddressView| {
        matches!(
            view.state,
            AddressState::Releasing | AddressState::Quarantined
        )
    };
    let serving = pool.enis.iter().filter(|eni| eni.usable);
    let kept = serving.filter_map(|eni| {
        let bond = Bond {
            attachment: eni.attachment.clone()?,
            card: eni.card,
            device: eni.device?,
            settled: true,
        };
        let singles = eni
            .addresses
            .iter()
            .filter(|view| view.prefix.is_none() && !unsure(view));
        let whole = |prefix: &Ipv4Net| {
            let mut members = eni
                .addresses
                .iter()
                .filter(|view| view.prefix == Some(*prefix));
            !members.any(unsure)
        };
        Some(Observed {
            eni: eni.id.clone()?,
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            subnet_cidr: eni.subnet_cidr,
            primary: eni.primary_address?,
            addresses: singles.map(|view| view.address).collect(),
            prefixes: eni.prefixes.iter().copied().filter(whole).collect(),
            attached: Some(bond),
            managed: true,
            tagged_ours: false,
        })
    });
    kept.collect()
}

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
            since: std::time::Duration::ZERO,
            retry_in,
        })
    })
}
