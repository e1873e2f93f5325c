//! The invariants, checked with knowledge that no daemon has: the whole world and every sandbox.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipamd::ec2::api::Call;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use planner::{EniId, Sandbox, Snapshot, limits, snapshot::EniView};
use vpc_sim::world::model::NetworkInterface;

use crate::{
    faults::Fault,
    scenario::Mode,
    state::{State, disturbances::Thing},
};

/// The maximum number of EC2 calls of one daemon within any minute (I9), whatever goes wrong.
const CALLS_PER_MINUTE: usize = 90;
/// The same while EC2 throttles everything: about twelve for each of the APIs that a growing node needs.
const CALLS_WHEN_THROTTLED: usize = 48;

/// I9: one more call.
pub fn spent(state: &mut State, call: &Call, now: Duration) {
    let count = state.budget.spend(now);
    let minute = Duration::from_secs(60);
    let storm = |at| {
        state
            .scenario
            .window(Fault::Throttled, at)
            .is_some_and(|window| window.percent == 100)
    };
    let limit = if now > minute && storm(now - minute) && storm(now) {
        CALLS_WHEN_THROTTLED
    } else {
        CALLS_PER_MINUTE
    };
    if count > limit {
        let what = format!(
            "{count} calls within a minute, {} the last; {limit} allowed",
            call.action()
        );
        state.fail(now, "I9: EC2 calls stay within the budget", what);
    }
}

/// I1, I2 and I3: `sandbox` gets an address.
pub fn granted(state: &mut State, sandbox: &Sandbox, address: IpAddr, eni: &EniId, now: Duration) {
    if let Some(holder) = state
        .ledger
        .holder(address)
        .filter(|holder| *holder != sandbox)
    {
        let what = format!(
            "{address} for {} is {}'s",
            sandbox.container_id, holder.container_id
        );
        state.fail(
            now,
            "I1: an address belongs to at most one live sandbox",
            what,
        );
    }
    if let Some(until) = state
        .ledger
        .resting
        .get(&address)
        .filter(|until| **until > now)
    {
        let what = format!("{address} is in cooldown until {:.3}", until.as_secs_f64());
        state.fail(now, "I3: no reuse within the cooldown", what);
    }
    let is_new = state.ledger.holder(address).is_none();
    let on_primary = *eni == state.primary;
    if is_new && on_primary && state.places.mode() == Mode::Custom {
        let what = format!("{address} of the primary ENI for {}", sandbox.container_id);
        state.fail(
            now,
            "in custom networking the primary ENI serves no pods",
            what,
        );
    }
    if is_new && state.claims.keeps(address, now) {
        let what = format!("{address} for {}", sandbox.container_id);
        state.fail(now, "I2: no pod gets what the host keeps from pods", what);
    }
    let excused = state.disturbed.excuses(&Thing::Eni(eni.clone()), now)
        || state.disturbed.excuses_address(address, now);
    if let Some(why) = unusable(state, address, eni).filter(|_| !excused) {
        let what = format!("{address} on {eni} for {}: {why}", sandbox.container_id);
        state.fail(
            now,
            "I2: an assigned address is on an attached ENI and usable",
            what,
        );
    }
}

fn unusable(state: &State, address: IpAddr, id: &EniId) -> Option<&'static str> {
    let Some(eni) = state.interface(id) else {
        return Some("the ENI does not exist");
    };
    if !state.is_attached(eni) {
        return Some("the ENI is not attached here");
    }
    if eni.primary().map(IpAddr::V4) == Some(address) {
        return Some("it is the ENI's own address");
    }
    if !eni.owns(address) {
        return Some("EC2 has not assigned it to the ENI");
    }
    let up = *id == state.primary || state.configured.contains(id);
    (!up).then_some("the host has not set the ENI up")
}

/// I5: what a mutating call would remove.
pub fn before_call(state: &mut State, call: &Call, now: Duration) {
    placed(state, call, now);
    let Some(target) = target(state, call) else {
        return;
    };
    let rule = "I5: nothing that is in use, or not ours, is removed";
    if !state.is_ours(&target) {
        state.fail(
            now,
            rule,
            format!("{} of {}, which is not ours", call.action(), target.id),
        );
    }
    let used = state.in_use_on(&target);
    let taken: Vec<IpAddr> = match call {
        Call::UnassignPrivateIpAddresses {
            addresses,
            prefixes,
            ..
        } => used
            .into_iter()
            .filter(|a| {
                let single = addresses.iter().any(|b| IpAddr::V4(*b) == *a);
                single || prefixes.iter().any(|p| IpNet::V4(*p).contains(a))
            })
            .collect(),
        Call::UnassignIpv6Addresses { prefixes, .. } => used
            .into_iter()
            .filter(|a| prefixes.iter().any(|p| IpNet::V6(*p).contains(a)))
            .collect(),
        _ => used,
    };
    if !taken.is_empty() {
        let what = format!("{} of {}: pods use {taken:?}", call.action(), target.id);
        state.fail(now, rule, what);
    }
    let primary = target.id.0 == state.primary.0;
    let unassigns = matches!(
        call,
        Call::UnassignPrivateIpAddresses { .. } | Call::UnassignIpv6Addresses { .. }
    );
    if primary && !unassigns {
        state.fail(now, rule, format!("{} of the primary ENI", call.action()));
    }
}

/// A new ENI is in a subnet that the operator wants, or wanted before.
fn placed(state: &mut State, call: &Call, now: Duration) {
    let Call::CreateNetworkInterface { subnet, .. } = call else {
        return;
    };
    let id = vpc_sim::ids::SubnetId(subnet.0.clone());
    if !state.places.was_wanted(&id) {
        let rule = "an ENI is created only where the settings allow it";
        state.fail(now, rule, format!("a Create in {subnet}"));
    }
}

/// The ENI from which `call` removes something; none if it removes nothing or the ENI does not exist.
fn target(state: &State, call: &Call) -> Option<NetworkInterface> {
    match call {
        Call::UnassignPrivateIpAddresses { eni, .. }
        | Call::UnassignIpv6Addresses { eni, .. }
        | Call::DeleteNetworkInterface { eni } => state.interface(eni).cloned(),
        Call::DetachNetworkInterface { attachment } => {
            let bound = |eni: &&NetworkInterface| {
                eni.attachment
                    .as_ref()
                    .is_some_and(|known| known.id.0 == attachment.0)
            };
            state.world.interfaces().find(bound).cloned()
        }
        _ => None,
    }
}

/// I8 and liveness: an ADD from `asked` was answered now, with or without an address.
pub fn answered(
    state: &mut State,
    sandbox: &Sandbox,
    (asked, deadline): (Duration, Duration),
    refusal: Option<String>,
    now: Duration,
) {
    const SLACK: Duration = Duration::from_secs(1);
    const PATIENCE: Duration = Duration::from_secs(30);
    let id = &sandbox.container_id;
    if now > deadline + SLACK {
        let what = format!(
            "the answer to {id} was {:.3} s late",
            (now - deadline).as_secs_f64()
        );
        state.fail(now, "I8: every ADD is answered by its deadline", what);
    }
    let Some(calm) = state.entitled else { return };
    let since = asked.max(calm);
    let patience = PATIENCE + grace(state);
    let waited = now.saturating_sub(since);
    let fair = deadline >= since + patience;
    if fair && (refusal.is_some() || waited > patience + SLACK) {
        let how = refusal.map_or_else(
            || "was served".to_owned(),
            |why| format!("was refused ({why})"),
        );
        let what = format!(
            "{id} {how} {:.3} s after the faults stopped",
            waited.as_secs_f64()
        );
        state.fail(
            now,
            "liveness: with capacity, every ADD is served within 30 s",
            what,
        );
    }
}

/// How long the design lets pods wait beyond half a minute, and why.
fn grace(state: &State) -> Duration {
    let mut grace = Duration::ZERO;
    if state.tally.of(Fault::LostReply) + state.tally.of(Fault::Unsent) > 0 {
        // A lost call is waited for until its timeout.
        grace += state.scenario.timeout;
    }
    if state.tally.of(Fault::Throttled) + state.tally.of(Fault::Buckets) > 0 {
        // The limiter lets a throttled account recover before its next call, even while pods wait (docs/fleet.md).
        grace += Duration::from_secs(60);
    }
    if !state.disturbed.is_empty() {
        // The slot of an ENI that another actor removed is free after two lists that are half a minute apart (I5).
        grace += Duration::from_secs(30);
    }
    grace
}

/// Unused addresses of our attached ENIs, and slots for one more address each. In IPv6, the node's size is the only
/// limit: the prefix never is, nor the space for it.
#[must_use]
pub fn capacity(state: &State) -> usize {
    if state.scenario.is_ipv6() {
        let limit = limits::pod_limit(state.scenario.kind, &state.scenario.config, true).addresses;
        let used = state.ledger.live.len() + state.ledger.granted.len();
        return usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(used);
    }
    if state.places.changed || state.places.unlisted {
        // What the daemon knows of the subnets may be old.
        return 0;
    }
    let slots = usize::from(state.scenario.kind.slots_per_eni());
    let attached = state.world.interfaces().filter(|eni| {
        eni.attachment
            .as_ref()
            .is_some_and(|attachment| attachment.instance == state.me)
    });
    let (ours, foreign): (Vec<_>, Vec<_>) =
        attached.partition(|eni| state.is_ours(eni) && !eni.requester_managed);
    let serves = |eni: &&NetworkInterface| state.places.serves(&state.world, eni, &state.primary);
    let (ours, closed): (Vec<_>, Vec<_>) = ours.into_iter().partition(serves);
    let cap = usize::from(state.scenario.kind.eni_cap(&state.scenario.config));
    // Slots that pods cannot use within half a minute: of attaches that hang, which have a minute, and of ENIs that
    // just disappeared, which the daemon does not know.
    let hanging = ours.iter().filter(|eni| !state.is_attached(eni)).count();
    let room = cap.saturating_sub(foreign.len() + hanging + state.just_left + closed.len());
    let attached = ours.iter().filter(|eni| state.is_attached(eni));
    let claimed = attached.map(|eni| claimed(state, eni)).sum::<usize>();
    let held = state.ledger.live.len() + state.ledger.resting.len() + claimed;
    let by_slots = (room * slots).saturating_sub(held);
    let places = state.places.fitting(&state.world);
    let subnet: u128 = places.iter().map(|id| state.world.available(id)).sum();
    let subnet = usize::try_from(subnet).unwrap_or(usize::MAX);
    // Unused addresses of our ENIs, and what the subnet can still assign beyond new ENIs' own addresses.
    let idle = ours
        .iter()
        .filter(|eni| state.is_attached(eni))
        .map(|eni| spare(state, eni))
        .sum::<usize>();
    by_slots.min(idle + subnet.saturating_sub(room))
}

fn spare(state: &State, eni: &NetworkInterface) -> usize {
    let total = eni.ipv4.len() - 1 + eni.ipv4_prefixes.len() * 16;
    let rests = |a: &&IpAddr| eni.owns(**a);
    total.saturating_sub(
        state.in_use_on(eni).len()
            + state.ledger.resting.keys().filter(rests).count()
            + claimed(state, eni),
    )
}

/// Unused addresses that the host keeps from pods.
fn claimed(state: &State, eni: &NetworkInterface) -> usize {
    let used = state.in_use_on(eni);
    let idle = |a: &IpAddr| !used.contains(a) && !state.ledger.resting.contains_key(a);
    let here = state.claims.addresses().filter(|a| eni.owns(*a));
    here.filter(idle).count()
}

/// How long after the end of the faults an address may be assigned in EC2 but unused (I4): two minutes, plus the longer
/// waits of the design. If IAM denied or EC2 refused the list itself, it is tried again after five minutes at most.
#[must_use]
pub fn address_limit(state: &State) -> Duration {
    let denied = state.tally.of(Fault::Denied) + state.tally.of(Fault::Lasting) > 0;
    let policy = Duration::from_secs(if denied { 300 } else { 0 });
    Duration::from_secs(120) + grace(state) + policy
}

/// I4: ENIs and addresses that belong to this node in EC2 but not for the daemon.
#[must_use]
pub fn leaks(state: &State, seen: &Snapshot, now: Duration) -> BTreeSet<String> {
    let mut leaks = leaked_enis(state, seen, now);
    leaks.extend(leaked_addresses(state, seen, now));
    leaks.extend(spare_prefixes(state));
    leaks
}

fn leaked_enis(state: &State, seen: &Snapshot, now: Duration) -> BTreeSet<String> {
    let mut leaks = BTreeSet::new();
    for eni in state.world.interfaces().filter(|eni| state.is_ours(eni)) {
        let id = planner::EniId(eni.id.0.clone());
        if state.disturbed.excuses(&Thing::Eni(id.clone()), now) {
            continue;
        }
        if !state.is_attached(eni) {
            let how = eni
                .attachment
                .as_ref()
                .map_or("attached to nothing", |attachment| attachment.state.name());
            leaks.insert(format!("{id} is {how}"));
            continue;
        }
        if !seen.enis.iter().any(|view| view.id.as_ref() == Some(&id)) {
            leaks.insert(format!("{id} is attached and the daemon does not know it"));
        }
    }
    leaks
}

/// IPv6 prefixes without a pod, beyond the one that serves the node.
fn spare_prefixes(state: &State) -> Option<String> {
    let primary = state.interface(&state.primary)?;
    let used = state.in_use_on(primary);
    let idle = primary.ipv6_prefixes.iter().filter(|net| {
        used.iter()
            .all(|address| !IpNet::V6(**net).contains(address))
    });
    let idle: Vec<_> = idle.collect();
    let needed = usize::from(idle.len() == primary.ipv6_prefixes.len());
    // The daemon was not told of a prefix that another actor assigned.
    let told = state.disturbed.is_empty();
    (told && idle.len() > needed).then(|| format!("{idle:?} are assigned without a pod"))
}

/// Unknown addresses of ENIs that the daemon knows.
#[must_use]
pub fn leaked_addresses(state: &State, seen: &Snapshot, now: Duration) -> BTreeSet<String> {
    let mut leaks = BTreeSet::new();
    // The addresses of an unattached ENI belong to it: the ENI is the leak, and has its own limit.
    let attached = |eni: &&NetworkInterface| state.is_ours(eni) && state.is_attached(eni);
    for eni in state.world.interfaces().filter(attached) {
        let known = |view: &&EniView| view.id.as_ref().is_some_and(|id| id.0 == eni.id.0);
        let Some(view) = seen.enis.iter().find(known) else {
            continue;
        };
        let known: BTreeSet<IpAddr> = view.addresses.iter().map(|a| a.address).collect();
        let singles = eni.ipv4.iter().skip(1).copied();
        let members = eni.ipv4_prefixes.iter().map(Ipv4Net::network);
        let six = eni.ipv6_prefixes.iter().map(Ipv6Net::network);
        let all = singles.chain(members).map(IpAddr::V4);
        for address in all
            .chain(six.map(IpAddr::V6))
            .filter(|address| !known.contains(address))
            .filter(|address| !state.disturbed.excuses_address(*address, now))
        {
            leaks.insert(format!("{address} of {} is unknown to the daemon", eni.id));
        }
    }
    leaks
}
