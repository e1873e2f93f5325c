//! What happens to the planner: requests from pods, answers from EC2 and the kernel, and the node's own state.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{Attachment, Demand, EniId, Mac, Mono, Op, Pod, Sandbox, SubnetId, Ticket};

#[derive(Clone, Debug)]
pub enum Event {
    /// A pod wants an address; an answer later than `deadline` is of no use to it.
    Add {
        ticket: Ticket,
        sandbox: Sandbox,
        pod: Pod,
        deadline: Mono,
    },
    /// The asker is gone; forget the ticket if it still waits.
    Cancel { ticket: Ticket },
    /// The sandbox's network stands and its record is durable: reserved becomes assigned.
    Wired { sandbox: Sandbox },
    /// Wiring failed and was undone without trace: reserved becomes free, with no cooldown, for nobody ever saw it.
    Unwired { sandbox: Sandbox },
    /// The sandbox's network is gone and its record freed: assigned becomes cooling. Unknown sandboxes are ignored.
    Left { sandbox: Sandbox },
    /// The answer to the command that carried `op`. Each op is answered exactly once.
    Answered {
        op: Op,
        result: Result<Answer, Failure>,
    },
    /// What the daemon knew before it was restarted. At most once, before anything else.
    Restore(Restored),
    /// EC2's complete list of what is attached to this instance, unasked (at start).
    Inventory(Vec<Observed>),
    /// The kernel has no link with this hardware address any more: whoever took the ENI away did not ask us. Unknown
    /// addresses are ignored, so whoever watches links need not know which of them are ENIs.
    EniLinkGone { mac: Mac },
    /// The node is cordoned or not; the daemon is on its way out or not.
    Node { schedulable: bool, stopping: bool },
    /// Time has passed: a deadline of [`crate::Planner::next_deadline`] came due.
    Tick,
}

/// A command succeeded.
#[derive(Clone, Debug)]
pub enum Answer {
    Created(Observed),
    Attached {
        attachment: Attachment,
    },
    /// EC2 gave exactly these, and only these are new.
    Assigned {
        addresses: Vec<IpAddr>,
        prefixes: Vec<IpNet>,
    },
    /// The answer to [`crate::Command::Describe`]: every ENI that is attached here or tagged as this node's.
    Described(Vec<Observed>),
    /// Done, with nothing to tell.
    Done,
}

/// A command failed. `class` decides what happens next; `message` is for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub class: Class,
    pub message: String,
}

/// What a failure means. The shell's one table maps EC2 codes to these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// `RequestLimitExceeded` and its kin: nothing was done; later.
    Throttled { retry_after: Option<Duration> },
    /// The subnet has no address left.
    Exhausted { subnet: SubnetId },
    /// The subnet has addresses left, but no whole free /28.
    Fragmented { subnet: SubnetId },
    /// The instance or ENI is at a limit that our view did not know of.
    Limit,
    /// The object is not there.
    NotFound,
    /// IAM does not allow `action`.
    Denied { action: String },
    /// The object is in use or not yet in the state that the call needs.
    InUse,
    /// The request may or may not have taken effect: describe before repeating.
    Ambiguous,
    /// Nothing was done and the cause may pass: connection refused, 5xx.
    Transient,
    /// The kernel's side failed (link did not appear, netlink error).
    Host,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// One ENI as EC2 describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    pub eni: EniId,
    pub mac: Mac,
    pub subnet: SubnetId,
    /// The subnet's IPv4 network.
    pub subnet_cidr: Ipv4Net,
    /// The ENI's own address, never a pod's.
    pub primary: Ipv4Addr,
    /// Secondary addresses of the pods' family; the primary one is not among them.
    pub addresses: Vec<IpAddr>,
    /// Prefixes of the pods' family: /28 or /80.
    pub prefixes: Vec<IpNet>,
    /// `None` if it is not attached.
    pub attached: Option<Bond>,
    /// Ours to grow, shrink and delete: tagged as this node's, or adopted; never EFA, trunk, requester-managed or
    /// marked `no_manage`. The instance's primary ENI is always managed, and never detached.
    pub managed: bool,
    /// Carries our instance tag, so that we may delete it when it is found unattached.
    pub tagged_ours: bool,
}

/// How an ENI is attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bond {
    pub attachment: Attachment,
    pub card: u16,
    pub device: u16,
    /// False while EC2 still says `attaching`, or already `detaching`.
    pub settled: bool,
}

/// What survived a restart.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    pub enis: Vec<Observed>,
    /// Live sandboxes: record and kernel agree on them.
    pub assigned: Vec<(Sandbox, Pod, IpAddr, EniId)>,
    /// Released addresses that still rest, and until when.
    pub cooling: Vec<(IpAddr, Mono)>,
    /// What was learnt of the node's demand ([`crate::Snapshot::demand`]), its `at` in this daemon's time.
    pub demand: Option<Demand>,
}
