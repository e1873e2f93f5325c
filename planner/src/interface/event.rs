//! The planner's inputs: requests from pods, answers from EC2 and the kernel, and the state of the node.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use nettypes::Mac;

use super::{
    names::{AttachmentId, EniId, Op, Pod, Sandbox, SecurityGroupId, SubnetId, Ticket},
    placement::{EniClass, NoClass, SubnetList},
};
use crate::{demand::Demand, time::Mono};

#[derive(Clone, Debug)]
pub enum Event {
    /// A pod wants an address. After `deadline` the answer is useless.
    Add {
        ticket: Ticket,
        sandbox: Sandbox,
        pod: Pod,
        deadline: Mono,
    },
    /// The caller is gone. Forget the ticket if it still waits.
    Cancel { ticket: Ticket },
    /// The sandbox's network is set up and its record is durable: reserved becomes assigned.
    Wired { sandbox: Sandbox },
    /// The setup failed and was undone: reserved becomes free. There is no cooldown, because the address was never in use.
    Unwired { sandbox: Sandbox },
    /// The sandbox's network and its record are gone: assigned becomes cooling. Unknown sandboxes are ignored.
    Left { sandbox: Sandbox },
    /// The answer to the command with `op`. Each op is answered exactly once.
    Answered {
        op: Op,
        result: Result<Answer, Failure>,
    },
    /// What the daemon knew before it was restarted. Sent at most once, and only after [`Event::HostClaims`].
    Restore(Restored),
    /// EC2's complete list of what is attached to this instance, sent at start without a command.
    Inventory(Vec<Observed>),
    /// The kernel no longer has a link with this hardware address: somebody else detached the ENI. Unknown addresses are
    /// ignored, so the sender need not know which links are ENIs.
    EniLinkGone { mac: Mac },
    /// All addresses that the host keeps from pods, after each change. Where two overlap, the first one counts.
    HostClaims(Vec<(IpNet, HostClaim)>),
    /// What the node's ENIs are like from now on, or why that is not known.
    Class(Result<EniClass, NoClass>),
    /// Whether the node is cordoned, and whether the daemon is shutting down.
    Node { schedulable: bool, stopping: bool },
    /// The time of [`crate::Planner::next_deadline`] has come.
    Tick,
}

/// Why the host keeps an address from pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostClaim {
    /// The kernel takes it for an address of the node itself, so the node would receive the pod's packets.
    Own,
    /// A routing rule of another program, with this priority, decides the way of its packets.
    Rule { priority: u32 },
}

/// A command succeeded.
#[derive(Clone, Debug)]
pub enum Answer {
    Created(Observed),
    Attached {
        attachment: AttachmentId,
    },
    /// The addresses and prefixes that EC2 assigned in this call.
    Assigned {
        addresses: Vec<IpAddr>,
        prefixes: Vec<IpNet>,
    },
    /// The answer to [`crate::Command::Describe`]: every ENI that is attached to this instance or tagged for it.
    Described(Vec<Observed>),
    /// The answer to [`crate::Command::DescribeSubnets`].
    Subnets(SubnetList),
    /// Done. There is nothing to report.
    Done,
}

/// A command failed. `class` decides what happens next. The texts are for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    /// The call and the reason, each once: `CreateNetworkInterface: InternalError: …`.
    pub message: String,
    /// What helps, in one sentence. Empty if nobody knows.
    pub remedy: String,
}

impl Failure {
    /// A failure without a remedy.
    #[must_use]
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            remedy: String::new(),
        }
    }
}

/// What a failure means. One table in the daemon maps EC2's error codes to these classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// `RequestLimitExceeded` and similar codes. Nothing was done.
    Throttled { retry_after: Option<Duration> },
    /// The subnet has no free address.
    Exhausted,
    /// The subnet has free addresses, but no free /28 block.
    Fragmented,
    /// The instance or the ENI is at a limit that we did not know of.
    Limit,
    /// The object does not exist.
    NotFound,
    /// IAM does not allow `action`, for this reason if EC2 tells it.
    Denied { action: String, why: Option<String> },
    /// EC2 answered that it does not do this. Nothing was done.
    Refused(Rest),
    /// The object is in use, or is not yet in the state that the call needs.
    InUse,
    /// The request may or may not have taken effect. Describe before repeating it.
    Ambiguous,
    /// Nothing was done, and the cause may pass: connection refused, 5xx.
    Transient,
    /// The host failed: the link did not appear, or a netlink error.
    Host,
}

/// How long a refused action rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// The cause passes without anybody's help: expired credentials, another change at the same time.
    Short,
    /// Somebody must change the account, a quota, a setting or another object.
    Long,
}

impl Class {
    /// For log lines.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Throttled { .. } => "throttled",
            Self::Exhausted { .. } => "exhausted",
            Self::Fragmented { .. } => "fragmented",
            Self::Limit => "limit",
            Self::NotFound => "not_found",
            Self::Denied { .. } => "denied",
            Self::Refused(_) => "refused",
            Self::InUse => "in_use",
            Self::Ambiguous => "ambiguous",
            Self::Transient => "transient",
            Self::Host => "host",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// One ENI, as described by EC2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub eni: EniId,
    pub mac: Mac,
    pub subnet: SubnetId,
    /// The subnet's IPv4 network. `None` if EC2 does not show the subnet, so the ENI cannot be managed.
    pub subnet_cidr: Option<Ipv4Net>,
    /// Empty if they are not known.
    pub security_groups: Vec<SecurityGroupId>,
    /// The ENI's own address. It is never given to a pod.
    pub primary: Ipv4Addr,
    /// Secondary addresses of the pods' family, without the primary one.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of the pods' family: /28 or /80.
    pub prefixes: Vec<IpNet>,
    /// `None` if it is not attached.
    pub attached: Option<EniAttachment>,
    /// The pool may grow, shrink and delete it (see [`crate::ownership`]). The instance's primary ENI is always managed,
    /// and never detached.
    pub managed: bool,
    /// It carries our instance tag, so we may delete it if it is unattached.
    pub tagged_ours: bool,
}

/// The attachment of an ENI.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniAttachment {
    pub id: AttachmentId,
    pub card: u16,
    pub device: u16,
    /// False while EC2 reports `attaching` or `detaching`.
    pub settled: bool,
}

/// The state that survives a restart.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub enis: Vec<Observed>,
    /// Live sandboxes. Record and kernel agree on them.
    pub assigned: Vec<(Sandbox, Pod, IpAddr, EniId)>,
    /// Released addresses that are still cooling, and until when.
    pub cooling: Vec<(IpAddr, Mono)>,
    /// The learnt demand of the node ([`crate::Snapshot::demand`]). Its `at` is in this daemon's time.
    pub demand: Option<Demand>,
}
