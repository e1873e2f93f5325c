//! The planner's state as plain values, for introspection, metrics and `inspect`. Nothing here decides anything.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{
    Attachment, Class, Demand, EniId, Mac, Mono, Planner, Pod, PodLimit, Refusal, Sandbox,
    SubnetId,
    gate::Action,
    pool::{
        block::{Block, Slot, SlotState},
        eni::{Eni, Trust},
    },
};

pub use crate::pool::eni::Phase;

/// Everything at one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Mono,
    pub enis: Vec<EniView>,
    pub unmanaged: Vec<EniId>,
    pub waiting: Vec<WaitingView>,
    pub limit: PodLimit,
    pub subnets: Vec<SubnetView>,
    pub totals: Totals,
    pub targets: Targets,
    /// What the node has learnt of its pods' demand, whether or not it sizes the pool.
    pub demand: Demand,
    /// Actions that IAM denies, and for how long they rest.
    pub denied: Vec<(String, Duration)>,
    /// How long EC2's throttling keeps everything waiting.
    pub throttled_for: Option<Duration>,
    /// Whether EC2 has told what is attached.
    pub inventoried: bool,
    pub schedulable: bool,
    pub stopping: bool,
    /// Commands without an answer, the oldest first.
    pub calls: Vec<CallView>,
    pub decision: Decision,
    pub counters: Counters,
}

#[derive(Clone, Debug)]
pub struct EniView {
    /// `None` while EC2 is asked to create it.
    pub id: Option<EniId>,
    pub mac: Mac,
    pub subnet: SubnetId,
    pub subnet_cidr: Ipv4Net,
    pub primary_address: Option<Ipv4Addr>,
    pub attachment: Option<Attachment>,
    pub card: u16,
    pub device: Option<u16>,
    pub index: Option<u16>,
    pub primary: bool,
    pub phase: Phase,
    pub phase_since: Mono,
    /// Its free addresses may be granted.
    pub usable: bool,
    /// EC2 does not list it as attached and ours.
    pub missing: bool,
    pub prefixes: Vec<IpNet>,
    pub addresses: Vec<AddressView>,
}

#[derive(Clone, Debug)]
pub struct AddressView {
    pub address: IpAddr,
    pub state: AddressState,
    pub since: Mono,
    /// The prefix it is from.
    pub prefix: Option<IpNet>,
    pub sandbox: Option<Sandbox>,
    pub pod: Option<Pod>,
    /// When a cooling address is free again.
    pub until: Option<Mono>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressState {
    Free,
    Reserved,
    Assigned,
    Cooling,
    /// EC2 does not confirm it. A sandbox may still be on it.
    Quarantined,
    /// EC2 is asked to take it back.
    Releasing,
}

#[derive(Clone, Debug)]
pub struct WaitingView {
    pub sandbox: Sandbox,
    pub pod: Pod,
    pub since: Mono,
    /// What it would be told if its deadline were now.
    pub cause: Refusal,
}

/// A command without an answer.
#[derive(Clone, Debug)]
pub struct CallView {
    /// The EC2 action, or the host's work in words.
    pub action: &'static str,
    /// `None` if it is about none, or about one that has no id yet.
    pub eni: Option<EniId>,
    pub since: Mono,
}

/// What the planner would do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// One sentence, operands included.
    pub why: String,
    /// The targets in force, under their variables' names.
    pub policy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is as wanted, or nothing can be done about it.
    Rest,
    /// Something is under way or in the way.
    Wait,
    Grow,
    GiveBack,
}

#[derive(Clone, Debug)]
pub struct SubnetView {
    pub subnet: SubnetId,
    /// No address: asked again after this.
    pub exhausted_for: Option<Duration>,
    /// No whole /28: single addresses are asked for until then.
    pub fragmented_for: Option<Duration>,
}

/// Addresses by state over all ENIs, and ENIs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub enis: u32,
    pub max_enis: u32,
    pub free: u32,
    pub reserved: u32,
    pub assigned: u32,
    pub cooling: u32,
    pub quarantined: u32,
    pub releasing: u32,
    pub prefixes: u32,
    /// Addresses under way.
    pub incoming: u32,
    pub waiting: u32,
}

/// Distance from the warm targets; both 0 when the pool is as wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses still to be asked for.
    pub short: u32,
    /// Blocks (addresses, or prefixes in prefix mode) above the targets.
    pub over: u32,
}

/// Events since the start; they only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub adds: u64,
    pub grants: u64,
    /// Answers to a repeated ADD.
    pub repeated: u64,
    pub refused_pod_limit: u64,
    pub refused_empty: u64,
    pub refused_exhausted: u64,
    pub refused_throttled: u64,
    pub refused_denied: u64,
    pub refused_unreachable: u64,
    pub refused_eni_limit: u64,
    pub refused_stopping: u64,
    pub creates: u64,
    pub attaches: u64,
    pub modifies: u64,
    pub assigns: u64,
    pub unassigns: u64,
    pub detaches: u64,
    pub deletes: u64,
    pub describes: u64,
    pub failures_throttled: u64,
    pub failures_exhausted: u64,
    pub failures_denied: u64,
    pub failures_ambiguous: u64,
    pub failures_other: u64,
    /// Commands whose answer did not come in time.
    pub overdue: u64,
    /// Records of live sandboxes that contradicted each other at the start.
    pub conflicts: u64,
}

impl Counters {
    pub(crate) const fn count(&mut self, action: Action) {
        match action {
            Action::Create => self.creates += 1,
            Action::Attach => self.attaches += 1,
            Action::Modify => self.modifies += 1,
            Action::Assign => self.assigns += 1,
            Action::Unassign => self.unassigns += 1,
            Action::Detach => self.detaches += 1,
            Action::Delete => self.deletes += 1,
            Action::Describe => self.describes += 1,
            Action::Configure | Action::Deconfigure => {}
        }
    }

    pub(crate) const fn refused(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::PodLimit { .. } => &mut self.refused_pod_limit,
            Refusal::Empty { .. } | Refusal::Fixed | Refusal::Wiring { .. } => {
                &mut self.refused_empty
            }
            Refusal::Exhausted { .. } => &mut self.refused_exhausted,
            Refusal::Throttled { .. } => &mut self.refused_throttled,
            Refusal::Denied { .. } => &mut self.refused_denied,
            Refusal::Unreachable { .. } => &mut self.refused_unreachable,
            Refusal::EniLimit { .. } => &mut self.refused_eni_limit,
            Refusal::Stopping => &mut self.refused_stopping,
        } += 1;
    }

    pub(crate) const fn failure(&mut self, class: &Class) {
        *match class {
            Class::Throttled { .. } => &mut self.failures_throttled,
            Class::Exhausted { .. } | Class::Fragmented { .. } => &mut self.failures_exhausted,
            Class::Denied { .. } => &mut self.failures_denied,
            Class::Ambiguous => &mut self.failures_ambiguous,
            Class::Limit | Class::NotFound | Class::InUse | Class::Transient | Class::Host => {
                &mut self.failures_other
            }
        } += 1;
    }
}

impl From<&Eni> for EniView {
    fn from(eni: &Eni) -> Self {
        let missing = eni.trust != Trust::Sound;
        let prefixes = eni
            .blocks
            .values()
            .filter(|block| block.is_prefix())
            .map(|block| block.net)
            .collect();
        let slots = eni
            .blocks
            .values()
            .flat_map(|block| block.slots.iter().map(move |slot| (block, slot)));
        Self {
            id: eni.id.clone(),
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            subnet_cidr: eni.subnet_cidr,
            primary_address: eni.address,
            attachment: eni.attachment.clone(),
            card: eni.card,
            device: eni.device,
            index: eni.index,
            primary: eni.primary,
            phase: eni.phase,
            phase_since: eni.phase_since,
            usable: eni.grantable(),
            missing,
            prefixes,
            addresses: slots
                .map(|(block, slot)| AddressView::of(block, slot, missing))
                .collect(),
        }
    }
}

impl AddressView {
    fn of(block: &Block, slot: &Slot, missing: bool) -> Self {
        let until = match slot.state {
            SlotState::Cooling { until } => Some(until),
            _ => None,
        };
        let state = match slot.state {
            _ if block.releasing => AddressState::Releasing,
            _ if missing || block.doubt.is_some() => AddressState::Quarantined,
            SlotState::Free => AddressState::Free,
            SlotState::Reserved => AddressState::Reserved,
            SlotState::Assigned => AddressState::Assigned,
            SlotState::Cooling { .. } => AddressState::Cooling,
        };
        let (sandbox, pod) = slot
            .holder
            .as_ref()
            .map(|h| (h.sandbox.clone(), h.pod.clone()))
            .unzip();
        let prefix = block.is_prefix().then_some(block.net);
        Self {
            address: slot.address,
            state,
            since: slot.since,
            prefix,
            sandbox,
            pod,
            until,
        }
    }
}

impl Planner {
    /// Everything, copied. Costs a walk over all addresses: for people and scrapes, not for every event.
    #[must_use]
    pub fn snapshot(&self, now: Mono) -> Snapshot {
        let left = |until: Mono| Some(until.since(now)).filter(|left| !left.is_zero());
        let gates = self.gates();
        let subnets = gates.subnets.iter().map(|(subnet, gate)| SubnetView {
            subnet: subnet.clone(),
            exhausted_for: left(gate.exhausted.until()),
            fragmented_for: left(gate.fragmented.until()),
        });
        let denied = gates
            .denied
            .values()
            .filter_map(|(gate, name)| Some((name.clone(), left(gate.until())?)));
        Snapshot {
            at: now,
            enis: self.pool().enis().map(EniView::from).collect(),
            unmanaged: self.unmanaged_ids(),
            waiting: self.waiting_views(now),
            limit: self.pod_limit().clone(),
            subnets: subnets.collect(),
            totals: self.totals(),
            targets: self.targets(),
            demand: self.demand(now),
            denied: denied.collect(),
            throttled_for: left(gates.throttled.until()),
            inventoried: self.is_inventoried(),
            schedulable: self.is_schedulable(),
            stopping: self.is_stopping(),
            calls: self.calls(),
            decision: self.decision(now),
            counters: self.counters(),
        }
    }
}
