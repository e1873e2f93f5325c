//! The planner's state as plain values, for introspection, metrics and `inspect`. Nothing here decides anything.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    command::Refusal,
    names::{Attachment, EniId, Mac, Pod, Sandbox, SubnetId},
};
use crate::{demand::Demand, limits::PodLimit, time::Mono};

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

/// Where an ENI is in its life: the step that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// EC2 is asked to create it; it has no id yet.
    Creating,
    /// It exists and is to be attached.
    Unattached,
    /// It is attached; the host is to bring it up.
    Configuring,
    Ready,
    /// It is given up: the host is to take it out of use.
    Draining,
    Detaching,
    Deleting,
}

impl Phase {
    /// In the order of an ENI's life.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Unattached,
        Self::Configuring,
        Self::Ready,
        Self::Draining,
        Self::Detaching,
        Self::Deleting,
    ];

    /// As metrics and the command line spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Unattached => "unattached",
            Self::Configuring => "configuring",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Detaching => "detaching",
            Self::Deleting => "deleting",
        }
    }
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
