//! What the planner wants done. The shell carries these out without a thought of its own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use crate::{Attachment, EniId, Mac, Obstacle, Op, Pod, Sandbox, SubnetId, Ticket};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Wire `sandbox` with `address`, which lives on `eni`; then answer the ticket and send `Wired` or `Unwired`.
    /// `known`: the sandbox already has its wiring (a repeated ADD); only the answer is wanted, no event.
    /// `waited_for`: what kept the address from being granted at once.
    Grant {
        ticket: Ticket,
        sandbox: Sandbox,
        pod: Pod,
        address: IpAddr,
        eni: EniId,
        index: u16,
        known: bool,
        waited_for: Option<Obstacle>,
    },
    /// Turn the ticket down.
    Refuse {
        ticket: Ticket,
        sandbox: Sandbox,
        refusal: Refusal,
    },

    /// CreateNetworkInterface with tags, groups and `amount` in one call. `token` is the ClientToken: the same for
    /// every repetition of this intent.
    CreateEni {
        op: Op,
        token: String,
        subnet: SubnetId,
        amount: Amount,
    },
    /// AttachNetworkInterface.
    AttachEni {
        op: Op,
        eni: EniId,
        card: u16,
        device: u16,
    },
    /// ModifyNetworkInterfaceAttribute: delete the ENI with the instance. Its failure harms no pod.
    DeleteOnTermination {
        op: Op,
        eni: EniId,
        attachment: Attachment,
    },
    /// Host side: wait for the link with `mac`, give it its address, table, rule and mark chain.
    ConfigureEni(Box<ConfigureEni>),
    /// AssignPrivateIpAddresses or AssignIpv6Addresses, by count.
    Assign { op: Op, eni: EniId, amount: Amount },
    /// UnassignPrivateIpAddresses or UnassignIpv6Addresses: all are of one family.
    Unassign {
        op: Op,
        eni: EniId,
        addresses: Vec<IpAddr>,
        prefixes: Vec<IpNet>,
    },
    /// Host side: take the ENI's rule, table and mark chain away.
    DeconfigureEni { op: Op, eni: EniId },
    /// DetachNetworkInterface; answered once EC2 says that it is detached.
    DetachEni {
        op: Op,
        eni: EniId,
        attachment: Attachment,
    },
    /// DeleteNetworkInterface. "Not found" is a failure like any other: of a young ENI it proves nothing.
    DeleteEni { op: Op, eni: EniId },
    /// DescribeNetworkInterfaces for this node, because our view may be wrong.
    Describe { op: Op },
}

/// What the host needs to know to bring an ENI up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigureEni {
    pub op: Op,
    pub eni: EniId,
    pub mac: Mac,
    pub primary: Ipv4Addr,
    pub subnet_cidr: Ipv4Net,
    pub card: u16,
    pub device: u16,
    /// The small number that marks, link groups and chains are made from: 0 for the primary ENI, 1..=127 else.
    pub index: u16,
}

/// How much to ask for, in the unit of the pool's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Addresses(u16),
    Prefixes(u16),
    Ipv6Prefixes(u16),
}

/// Why an ADD was turned down, operands included. `Display` is the cause; the remedy is the shell's to word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The instance's limit is reached: `used` of `limit` are taken, and for the rest others `wait` already; `why` derives
    /// the figure.
    PodLimit {
        limit: u32,
        used: u32,
        wait: u32,
        why: String,
    },
    /// No free address came in time; growth is under way or was just asked for.
    Empty { waited: Duration, growing: String },
    /// As `Empty`, of a pool that may not grow.
    Fixed,
    /// An earlier request for the same sandbox is still being wired.
    Wiring { waited: Duration },
    /// The subnet is out of addresses; EC2 is asked again after `retry_in`.
    Exhausted {
        subnet: SubnetId,
        since: Duration,
        retry_in: Duration,
    },
    /// EC2 throttles this account.
    Throttled { retry_in: Duration },
    /// IAM denies an action that growth needs.
    Denied { action: String },
    /// EC2 does not answer, or answers what cannot be used.
    Unreachable { message: String, retry_in: Duration },
    /// Every ENI slot is taken, some by interfaces that are not ours.
    EniLimit { why: String },
    /// The daemon is shutting down.
    Stopping,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PodLimit {
                limit, used, why, ..
            } if used >= limit => write!(f, "all {limit} pod addresses are in use: {why}"),
            Self::PodLimit {
                limit,
                used,
                wait,
                why,
            } => write!(
                f,
                "{used} of {limit} pod addresses are in use, and {wait} pods wait already: {why}"
            ),
            Self::Empty { waited, growing } => write!(
                f,
                "no free address after {:.1} s; {growing}",
                waited.as_secs_f32()
            ),
            Self::Fixed => f.write_str(
                "no address is free, and the pool may not grow: DISABLE_NETWORK_RESOURCE_PROVISIONING is set",
            ),
            Self::Wiring { waited } => write!(
                f,
                "an earlier request for this sandbox is still being wired after {:.1} s",
                waited.as_secs_f32()
            ),
            Self::Exhausted {
                subnet,
                since,
                retry_in,
            } => write!(
                f,
                "subnet {subnet} has had no free address for {} s; {}",
                since.as_secs(),
                asked_again(*retry_in)
            ),
            Self::Throttled { retry_in } => write!(
                f,
                "EC2 throttles this account; {}",
                asked_again(*retry_in)
            ),
            Self::Denied { action } => write!(f, "IAM denies {action}"),
            Self::Unreachable { message, retry_in } => write!(
                f,
                "EC2 cannot be used: {message}; {}",
                asked_again(*retry_in)
            ),
            Self::EniLimit { why } => write!(f, "no ENI can be added: {why}"),
            Self::Stopping => f.write_str("the daemon is shutting down"),
        }
    }
}

fn asked_again(retry_in: Duration) -> String {
    match retry_in.as_millis().div_ceil(1000) {
        0 => "it is being asked again".to_owned(),
        seconds => format!("asking again in {seconds} s"),
    }
}
