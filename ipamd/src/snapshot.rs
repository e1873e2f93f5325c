//! The pool's snapshot in other people's terms: the gRPC message and the gauges.

use planner::Snapshot;
use proto::v1;

use crate::metrics::PoolGauges;

/// For the command line.
#[must_use]
pub fn to_wire(pool: &Snapshot) -> v1::Snapshot {
    let sandbox = |s: &planner::Sandbox| v1::Sandbox {
        network: s.network.clone(),
        container_id: s.container_id.clone(),
        ifname: s.ifname.clone(),
    };
    let pod = |p: &planner::Pod| v1::Pod { namespace: p.namespace.clone(), name: p.name.clone(), uid: p.uid.clone() };
    let enis = pool.enis.iter().map(|eni| v1::Eni {
        id: eni.eni.0.clone(),
        state: eni.state.to_owned(),
        device_index: eni.device.unwrap_or_default().into(),
        primary: eni.primary.octets().into(),
        mac: eni.mac.0.into(),
        addresses: eni
            .slots
            .iter()
            .map(|slot| v1::Address {
                address: slot.address.octets().into(),
                state: slot.state.name().to_owned(),
                sandbox: slot.sandbox.as_ref().map(sandbox),
                pod: slot.pod.as_ref().map(pod),
            })
            .collect(),
    });
    v1::Snapshot {
        instance_id: String::new(),
        instance_type: pool.instance_type.clone(),
        pod_limit: pool.pod_limit,
        pod_limit_why: pool.pod_limit_why.clone(),
        enis: enis.collect(),
        waiting: u32::try_from(pool.waiting).unwrap_or(u32::MAX),
    }
}

/// For Prometheus.
#[must_use]
pub fn to_gauges(pool: &Snapshot) -> PoolGauges {
    let mut by_state = ["free", "reserved", "assigned", "cooling", "quarantined", "releasing"].map(|s| (s, 0));
    for slot in pool.enis.iter().flat_map(|eni| &eni.slots) {
        if let Some((_, n)) = by_state.iter_mut().find(|(state, _)| *state == slot.state.name()) {
            *n += 1;
        }
    }
    PoolGauges { enis: pool.enis.len(), eni_max: pool.eni_max, waiting: pool.waiting, by_state }
}
