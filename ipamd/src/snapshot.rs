//! The pool's snapshot in other people's terms: the gRPC message and the answer to STATUS.

use std::time::Duration;

use ipnet::IpNet;
use planner::{
    Mono, Observed, Pod, Sandbox, Snapshot,
    event::Bond,
    snapshot::{AddressState, AddressView, CallView, EniView, Verdict, WaitingView},
};
use proto::{refusal::Refusal, v1};

use crate::refusals;

/// For the command line.
#[must_use]
pub fn to_wire(pool: &Snapshot, instance_id: &str, instance_type: &str) -> v1::Snapshot {
    v1::Snapshot {
        instance_id: instance_id.to_owned(),
        instance_type: instance_type.to_owned(),
        pod_limit: pool.limit.addresses,
        pod_limit_why: pool.limit.derivation.clone(),
        enis: pool.enis.iter().map(|view| eni(view, pool.at)).collect(),
        waiting: pool.totals.waiting,
        queue: pool
            .waiting
            .iter()
            .map(|view| waiting(view, pool.at))
            .collect(),
        totals: Some(totals(pool)),
        decision: Some(v1::Decision {
            verdict: verdict(pool.decision.verdict).to_owned(),
            why: pool.decision.why.clone(),
            policy: pool.decision.policy.clone(),
        }),
        calls: pool.calls.iter().map(|view| call(view, pool.at)).collect(),
        obstacles: obstacles(pool),
        unmanaged: pool.unmanaged.iter().map(ToString::to_string).collect(),
        cordoned: !pool.schedulable,
        stopping: pool.stopping,
    }
}

const fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Rest => "rest",
        Verdict::Wait => "wait",
        Verdict::Grow => "grow",
        Verdict::GiveBack => "give back",
    }
}

fn totals(pool: &Snapshot) -> v1::Totals {
    let totals = pool.totals;
    v1::Totals {
        enis: totals.enis,
        max_enis: totals.max_enis,
        free: totals.free,
        reserved: totals.reserved,
        assigned: totals.assigned,
        cooling: totals.cooling,
        quarantined: totals.quarantined,
        releasing: totals.releasing,
        prefixes: totals.prefixes,
        incoming: totals.incoming,
    }
}

fn waiting(view: &WaitingView, now: Mono) -> v1::Waiting {
    v1::Waiting {
        sandbox: Some(sandbox(&view.sandbox)),
        pod: Some(pod(&view.pod)),
        waited_ms: age(view.since, now),
        cause: view.cause.to_string(),
    }
}

fn call(view: &CallView, now: Mono) -> v1::Call {
    v1::Call {
        action: view.action.to_owned(),
        eni: view
            .eni
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        age_ms: age(view.since, now),
    }
}

fn obstacles(pool: &Snapshot) -> Vec<v1::Obstacle> {
    let obstacle = |what: String, wait: Duration| v1::Obstacle {
        what,
        for_ms: milliseconds(wait),
    };
    let throttled = pool
        .throttled_for
        .map(|wait| obstacle("EC2 throttles this account".to_owned(), wait));
    let denied = pool
        .denied
        .iter()
        .map(|(action, wait)| obstacle(format!("IAM denies {action}"), *wait));
    let subnets = pool.subnets.iter().flat_map(|gate| {
        let name = &gate.subnet;
        let exhausted = gate
            .exhausted_for
            .map(|wait| obstacle(format!("{name} has no free address"), wait));
        let fragmented = gate
            .fragmented_for
            .map(|wait| obstacle(format!("{name} has no whole /28"), wait));
        exhausted.into_iter().chain(fragmented)
    });
    throttled.into_iter().chain(denied).chain(subnets).collect()
}

fn age(since: Mono, now: Mono) -> u64 {
    milliseconds(now.since(since))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn eni(eni: &EniView, now: Mono) -> v1::Eni {
    v1::Eni {
        id: eni.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: eni.phase.name().to_owned(),
        device_index: eni.device.unwrap_or_default().into(),
        primary: eni
            .primary_address
            .map(|address| address.octets().into())
            .unwrap_or_default(),
        mac: eni.mac.0.into(),
        addresses: eni
            .addresses
            .iter()
            .map(|view| address(view, now))
            .collect(),
        subnet: eni.subnet.to_string(),
        card: eni.card.into(),
        is_primary: eni.primary,
        state_ms: age(eni.phase_since, now),
        missing: eni.missing,
        prefixes: eni.prefixes.iter().map(ToString::to_string).collect(),
    }
}

fn address(view: &AddressView, now: Mono) -> v1::Address {
    v1::Address {
        address: proto::address::octets(view.address),
        state: name(view.state).to_owned(),
        sandbox: view.sandbox.as_ref().map(sandbox),
        pod: view.pod.as_ref().map(pod),
        state_ms: age(view.since, now),
        prefix: view
            .prefix
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default(),
        until_ms: view.until.map_or(0, |until| milliseconds(until.since(now))),
    }
}

fn sandbox(sandbox: &Sandbox) -> v1::Sandbox {
    v1::Sandbox {
        network: sandbox.network.clone(),
        container_id: sandbox.container_id.clone(),
        ifname: sandbox.ifname.clone(),
    }
}

fn pod(pod: &Pod) -> v1::Pod {
    v1::Pod {
        namespace: pod.namespace.clone(),
        name: pod.name.clone(),
        uid: pod.uid.clone(),
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
        let whole = |prefix: &IpNet| {
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
            since: Duration::ZERO,
            retry_in,
        })
    })
}
