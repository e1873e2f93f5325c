//! The pool's snapshot as the gRPC message and as the answer to STATUS.

use std::{collections::BTreeMap, time::Duration};

use planner::{
    HostClaim, Mono, Pod, Sandbox, Snapshot,
    placement::Closed,
    snapshot::{
        AddressState, AddressView, CallView, EniView, PlacesView, RefusedView, Verdict, WaitingView,
    },
};
use proto::{asked, v1};

use crate::{config::notices::Notice, sandbox::sandboxes::Extras};

/// For the command line. `extras` is what pods have besides their address; pods without extras may be missing.
#[must_use]
pub fn to_wire(
    pool: &Snapshot,
    extras: &BTreeMap<Sandbox, Extras>,
    instance_id: &str,
    instance_type: &str,
    notices: &[Notice],
) -> v1::Snapshot {
    v1::Snapshot {
        instance_id: instance_id.to_owned(),
        instance_type: instance_type.to_owned(),
        pod_limit: pool.limit.addresses,
        pod_limit_why: pool.limit.derivation.clone(),
        enis: pool
            .enis
            .iter()
            .map(|view| eni(view, extras, pool.at))
            .collect(),
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
        settings: notices.iter().map(setting).collect(),
        refused: pool
            .refused
            .iter()
            .map(|view| refused(view, pool.at))
            .collect(),
        places: Some(places(&pool.places)),
    }
}

fn places(view: &PlacesView) -> v1::Places {
    let none = view.none.as_ref();
    v1::Places {
        class: view.class.clone(),
        subnets: view.open.iter().map(ToString::to_string).collect(),
        none: none.map(|none| none.why.clone()).unwrap_or_default(),
        remedy: none.map(|none| none.remedy.clone()).unwrap_or_default(),
        unlisted: view.unlisted.clone().unwrap_or_default(),
    }
}

/// What an ENI that gets no more pods waits for, and why.
fn closed(eni: &EniView) -> String {
    let why = match eni.closed {
        None => return String::new(),
        Some(Closed::Primary) => return "serves no pods: custom networking".to_owned(),
        Some(Closed::Excluded) => "a tag excludes its subnet",
        Some(Closed::OtherClass) => "the node's ENIConfig has another subnet or other groups",
    };
    match eni.primary {
        true => format!("serves no more pods: {why}"),
        false => format!("leaves with its pods: {why}"),
    }
}

fn setting(notice: &Notice) -> v1::SettingNotice {
    v1::SettingNotice {
        setting: notice.setting.clone(),
        kind: notice.kind.name().to_owned(),
        text: notice.text.clone(),
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
        withheld: totals.withheld,
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

fn refused(view: &RefusedView, now: Mono) -> v1::RefusedAction {
    v1::RefusedAction {
        what: match &view.denied {
            Some(denied) => format!("IAM denies {denied}"),
            None => format!("EC2 refuses {}", view.action),
        },
        message: view.message.clone(),
        remedy: view.remedy.clone(),
        age_ms: age(view.at, now),
        retry_ms: milliseconds(view.retry_in),
        stops_growth: view.stops_growth,
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
    let subnets = pool.subnets.iter().flat_map(|gate| {
        let name = &gate.subnet;
        let exhausted = gate
            .exhausted_for
            .map(|wait| obstacle(format!("{name} has no free address"), wait));
        let fragmented = gate
            .fragmented_for
            .map(|wait| obstacle(format!("{name} has no free /28"), wait));
        let refused = gate
            .refused_for
            .map(|wait| obstacle(format!("EC2 refuses ENIs in {name}"), wait));
        exhausted.into_iter().chain(fragmented).chain(refused)
    });
    throttled.into_iter().chain(subnets).collect()
}

fn age(since: Mono, now: Mono) -> u64 {
    milliseconds(now.since(since))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn eni(eni: &EniView, extras: &BTreeMap<Sandbox, Extras>, now: Mono) -> v1::Eni {
    v1::Eni {
        id: eni.id.as_ref().map(ToString::to_string).unwrap_or_default(),
        state: eni.phase.name().to_owned(),
        device_index: eni.device.unwrap_or_default().into(),
        primary: eni
            .primary_address
            .map(|address| address.octets().into())
            .unwrap_or_default(),
        mac: eni.mac.map(|mac| mac.0.into()).unwrap_or_default(),
        addresses: eni
            .addresses
            .iter()
            .map(|view| address(view, extras, now))
            .collect(),
        subnet: eni.subnet.to_string(),
        card: eni.card.into(),
        is_primary: eni.primary,
        state_ms: age(eni.phase_since, now),
        missing: eni.missing,
        prefixes: eni.prefixes.iter().map(ToString::to_string).collect(),
        closed: closed(eni),
    }
}

fn address(view: &AddressView, extras: &BTreeMap<Sandbox, Extras>, now: Mono) -> v1::Address {
    let sandbox_of = view.sandbox.as_ref();
    let extras = sandbox_of.and_then(|sandbox| extras.get(sandbox));
    let Extras { asked, egress } = extras.cloned().unwrap_or_default();
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
        host_uses: view.claim == Some(HostClaim::Own),
        foreign_rule: match view.claim {
            Some(HostClaim::Rule { priority }) => priority,
            _ => 0,
        },
        port_mappings: asked.ports.into_iter().map(Into::into).collect(),
        bandwidth: asked::message(asked.bandwidth),
        egress_address: egress.map(proto::address::octets).unwrap_or_default(),
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
        namespace: pod.namespace.clone().unwrap_or_default(),
        name: pod.name.clone().unwrap_or_default(),
        uid: pod.uid.clone().unwrap_or_default(),
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
