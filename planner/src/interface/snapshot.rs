//! The planner's state as plain values, for introspection, metrics and `inspect`. Makes no decision.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::{
    command::Refusal,
    event::HostClaim,
    names::{AttachmentId, EniId, Pod, Sandbox, SecurityGroupId, SubnetId},
    placement::{Closed, NoClass, SubnetList},
};
use nettypes::{EniIndex, Mac};

use crate::{demand::Demand, limits::PodLimit, time::Mono};

/// The whole state at one time.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub at: Mono,
    pub enis: Vec<EniView>,
    pub unmanaged: Vec<EniId>,
    pub waiting: Vec<WaitingView>,
    pub limit: PodLimit,
    pub subnets: Vec<SubnetView>,
    pub places: PlacesView,
    pub totals: Totals,
    pub targets: Targets,
    /// The learnt demand of the node's pods, even if it does not size the pool.
    pub demand: Demand,
    /// Actions that IAM denies, and how long until the next try.
    pub denied: Vec<(String, Duration)>,
    /// Actions whose last try EC2 refused, those that IAM denies included.
    pub refused: Vec<RefusedView>,
    /// How long EC2's throttling keeps calls waiting.
    pub throttled_for: Option<Duration>,
    /// Whether EC2 has reported what is attached.
    pub inventoried: bool,
    pub schedulable: bool,
    pub stopping: bool,
    /// Commands without an answer, oldest first.
    pub calls: Vec<CallView>,
    pub decision: Decision,
    pub counters: Counters,
}

#[derive(Clone, Debug)]
pub struct EniView {
    /// `None` while EC2 is creating it.
    pub id: Option<EniId>,
    /// `None` until EC2 has described it.
    pub mac: Option<Mac>,
    pub subnet: SubnetId,
    pub subnet_cidr: Option<Ipv4Net>,
    /// Empty until EC2 has reported them.
    pub security_groups: Vec<SecurityGroupId>,
    pub primary_address: Option<Ipv4Addr>,
    pub attachment: Option<AttachmentId>,
    pub card: u16,
    pub device: Option<u16>,
    pub index: Option<EniIndex>,
    pub primary: bool,
    pub phase: Phase,
    pub phase_since: Mono,
    /// Pods on it have a network.
    pub usable: bool,
    /// Why no new pod gets an address of it. Its pods keep theirs.
    pub closed: Option<Closed>,
    /// EC2 does not list it as attached and managed.
    pub missing: bool,
    pub prefixes: Vec<IpNet>,
    pub addresses: Vec<AddressView>,
}

/// Where an ENI is in its life: the step that comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// EC2 is creating it; it has no id yet.
    Creating,
    /// It exists and will be attached.
    Unattached,
    /// It is attached; the host is configuring it.
    Configuring,
    Ready,
    /// It is given up: the host is to stop using it.
    Draining,
    Detaching,
    Deleting,
}

impl Phase {
    /// In their order.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::Unattached,
        Self::Configuring,
        Self::Ready,
        Self::Draining,
        Self::Detaching,
        Self::Deleting,
    ];

    /// Its name in metrics and on the command line.
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
    /// The prefix that contains it.
    pub prefix: Option<IpNet>,
    pub sandbox: Option<Sandbox>,
    pub pod: Option<Pod>,
    /// When a cooling address is free again.
    pub until: Option<Mono>,
    /// Why the host keeps it from pods. It is quarantined unless a pod has it.
    pub claim: Option<HostClaim>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressState {
    Free,
    Reserved,
    Assigned,
    Cooling,
    /// EC2 does not confirm it, or the host keeps it from pods. It may still have a sandbox.
    Quarantined,
    /// EC2 is asked to unassign it.
    Releasing,
}

#[derive(Clone, Debug)]
pub struct WaitingView {
    pub sandbox: Sandbox,
    pub pod: Pod,
    pub since: Mono,
    /// The answer that it would get if its deadline were now.
    pub cause: Refusal,
}

/// An action whose last try was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedView {
    /// The EC2 action.
    pub action: &'static str,
    /// What IAM denies, if it does.
    pub denied: Option<String>,
    /// The call, and EC2's code and message.
    pub message: String,
    /// What helps. Empty if nobody knows.
    pub remedy: String,
    /// When EC2 last refused it.
    pub at: Mono,
    /// How long until the next try is possible.
    pub retry_in: Duration,
    /// The pool cannot grow without this action.
    pub stops_growth: bool,
}

/// A command without an answer.
#[derive(Clone, Debug)]
pub struct CallView {
    /// The EC2 action, or the work of the host in words.
    pub action: &'static str,
    /// `None` if it is about no ENI, or about one without an id.
    pub eni: Option<EniId>,
    pub since: Mono,
}

/// What the planner would do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub verdict: Verdict,
    /// One sentence, with operands.
    pub why: String,
    /// The targets in force, by the names of their variables.
    pub policy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as wanted, or nothing can be done.
    Rest,
    /// A call is in progress, or something prevents it.
    Wait,
    Grow,
    GiveBack,
}

#[derive(Clone, Debug)]
pub struct SubnetView {
    pub subnet: SubnetId,
    /// The subnet has no free address. The time until the next try.
    pub exhausted_for: Option<Duration>,
    /// The subnet has no free /28. Single addresses are requested for this long.
    pub fragmented_for: Option<Duration>,
    /// EC2 refuses new ENIs in this subnet. The time until the next try.
    pub refused_for: Option<Duration>,
}

/// Where new ENIs are created.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlacesView {
    /// The origin of the class of new ENIs.
    pub class: String,
    /// The subnets in which ENIs may be created, best first.
    pub open: Vec<SubnetId>,
    /// Why there is no such subnet.
    pub none: Option<NoClass>,
    /// What EC2 said about subnets, and when. `None`: not since the start.
    pub list: SubnetList,
    pub listed_at: Option<Mono>,
    /// Why the last try to list them failed.
    pub unlisted: Option<String>,
}

/// The number of ENIs, and of addresses by state over all ENIs.
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
    /// Addresses that the host keeps from pods, whatever their state.
    pub claimed: u32,
    pub prefixes: u32,
    /// Free addresses of ENIs that get no more pods.
    pub withheld: u32,
    /// Addresses that were requested and will come soon.
    pub incoming: u32,
    pub waiting: u32,
}

/// Distance from the warm targets. Both are 0 when the pool is as wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// Addresses that are missing.
    pub short: u32,
    /// Blocks (addresses, or prefixes in prefix mode) above the targets.
    pub over: u32,
}

/// Counts of events since the start. They only rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    pub adds: u64,
    pub grants: u64,
    /// Answers to a repeated ADD.
    pub repeated: u64,
    pub refused_pod_limit: u64,
    pub refused_empty: u64,
    pub refused_exhausted: u64,
    pub refused_no_subnet: u64,
    pub refused_throttled: u64,
    pub refused_denied: u64,
    pub refused_by_ec2: u64,
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
    pub subnet_lists: u64,
    pub failures_throttled: u64,
    pub failures_exhausted: u64,
    pub failures_denied: u64,
    pub failures_refused: u64,
    pub failures_ambiguous: u64,
    pub failures_other: u64,
    /// Commands without an answer in time.
    pub overdue: u64,
    /// Records of live sandboxes that contradicted each other at start.
    pub conflicts: u64,
}
