//! What the planner wants done. The caller carries commands out and makes no decision of its own.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};
use nettypes::{EniIndex, Mac};

use super::{
    names::{AttachmentId, EniId, Op, Pod, Sandbox, SecurityGroupId, SubnetId, Ticket},
    obstacle::Obstacle,
    placement::{Inquiry, NoClass},
};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Set up the network of `sandbox` with `address`, which belongs to `eni`. Then answer the ticket and send `Wired` or
    /// `Unwired`.
    /// `waited_for`: why the address was not granted at once.
    Grant {
        ticket: Ticket,
        sandbox: Sandbox,
        pod: Pod,
        address: IpAddr,
        eni: EniId,
        index: EniIndex,
        waited_for: Option<Obstacle>,
    },
    /// The network of `sandbox` is set up already, and `address` is its address: a repeated ADD. Answer the ticket as the
    /// first time, and send no event.
    GrantAgain {
        ticket: Ticket,
        sandbox: Sandbox,
        address: IpAddr,
        eni: EniId,
    },
    /// Answer the ticket with an error.
    Refuse {
        ticket: Ticket,
        sandbox: Sandbox,
        refusal: Refusal,
    },

    /// CreateNetworkInterface with tags, groups and addresses in one call. `token` is the ClientToken. It is the same in
    /// every repetition.
    CreateEni {
        op: Op,
        token: String,
        spec: EniSpec,
    },
    /// AttachNetworkInterface.
    AttachEni {
        op: Op,
        eni: EniId,
        card: u16,
        device: u16,
    },
    /// ModifyNetworkInterfaceAttribute: delete the ENI together with the instance. A failure harms no pod.
    DeleteOnTermination {
        op: Op,
        eni: EniId,
        attachment: AttachmentId,
    },
    /// ModifyNetworkInterfaceAttribute: the ENI gets these security groups.
    SetGroups {
        op: Op,
        eni: EniId,
        groups: Vec<SecurityGroupId>,
    },
    /// On the host: wait for the link with `mac`, then set up its address, table, rule and mark chain.
    ConfigureEni(Box<ConfigureEni>),
    /// AssignPrivateIpAddresses or AssignIpv6Addresses, by count.
    Assign { op: Op, eni: EniId, amount: Amount },
    /// UnassignPrivateIpAddresses or UnassignIpv6Addresses. All addresses and prefixes are of one family.
    Unassign {
        op: Op,
        eni: EniId,
        addresses: Vec<IpAddr>,
        prefixes: Vec<IpNet>,
    },
    /// On the host: remove the ENI's rule, table and mark chain.
    DeconfigureEni { op: Op, eni: EniId },
    /// DetachNetworkInterface. The answer is sent once EC2 reports that the ENI is detached.
    DetachEni {
        op: Op,
        eni: EniId,
        /// Of the link that disappears when the ENI is detached.
        mac: Option<Mac>,
        attachment: AttachmentId,
    },
    /// DeleteNetworkInterface. "Not found" is a failure like any other: EC2 may not find a new ENI yet.
    DeleteEni { op: Op, eni: EniId },
    /// DescribeNetworkInterfaces for this node, because our state may be wrong.
    Describe { op: Op },
    /// DescribeSubnets, and DescribeRouteTables if there is a choice. Without `at_once`, no ENI waits for it: it is one
    /// call, and route tables may follow with the next list.
    DescribeSubnets {
        op: Op,
        inquiry: Inquiry,
        at_once: bool,
    },
}

/// An ENI that is to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniSpec {
    pub subnet: SubnetId,
    /// `None`: those of the primary ENI.
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// The network card that it will be attached to.
    pub card: u16,
    /// The pod addresses that it gets when it is created.
    pub amount: Amount,
}

/// What the host needs in order to bring an ENI up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigureEni {
    pub op: Op,
    pub eni: EniId,
    pub mac: Mac,
    pub primary: Ipv4Addr,
    pub subnet_cidr: Ipv4Net,
    pub card: u16,
    pub device: u16,
    pub index: EniIndex,
}

impl Command {
    /// The API action, or what it is on the host.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::Grant { .. } => "Grant",
            Self::GrantAgain { .. } => "GrantAgain",
            Self::Refuse { .. } => "Refuse",
            Self::CreateEni { .. } => "CreateNetworkInterface",
            Self::AttachEni { .. } => "AttachNetworkInterface",
            Self::DeleteOnTermination { .. } | Self::SetGroups { .. } => {
                "ModifyNetworkInterfaceAttribute"
            }
            Self::ConfigureEni(_) => "ConfigureEni",
            Self::Assign {
                amount: Amount::Ipv6Prefixes(_),
                ..
            } => "AssignIpv6Addresses",
            Self::Assign { .. } => "AssignPrivateIpAddresses",
            Self::Unassign {
                addresses,
                prefixes,
                ..
            } => match (addresses.as_slice(), prefixes.as_slice()) {
                ([IpAddr::V6(_), ..], _) | (_, [IpNet::V6(_), ..]) => "UnassignIpv6Addresses",
                _ => "UnassignPrivateIpAddresses",
            },
            Self::DeconfigureEni { .. } => "DeconfigureEni",
            Self::DetachEni { .. } => "DetachNetworkInterface",
            Self::DeleteEni { .. } => "DeleteNetworkInterface",
            Self::Describe { .. } => "DescribeNetworkInterfaces",
            Self::DescribeSubnets { .. } => "DescribeSubnets",
        }
    }

    /// The ENI that it is about, if there is one yet.
    #[must_use]
    pub const fn eni(&self) -> Option<&EniId> {
        match self {
            Self::Grant { eni, .. }
            | Self::GrantAgain { eni, .. }
            | Self::AttachEni { eni, .. }
            | Self::DeleteOnTermination { eni, .. }
            | Self::SetGroups { eni, .. }
            | Self::Assign { eni, .. }
            | Self::Unassign { eni, .. }
            | Self::DeconfigureEni { eni, .. }
            | Self::DetachEni { eni, .. }
            | Self::DeleteEni { eni, .. } => Some(eni),
            Self::ConfigureEni(configure) => Some(&configure.eni),
            Self::Refuse { .. }
            | Self::CreateEni { .. }
            | Self::Describe { .. }
            | Self::DescribeSubnets { .. } => None,
        }
    }
}

/// As a log line tells it: the action and its operands.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.action())?;
        if let Some(eni) = self.eni() {
            write!(f, " {eni}")?;
        }
        match self {
            Self::CreateEni { spec, .. } => {
                write!(f, " in {} with {}", spec.subnet, spec.amount)
            }
            Self::AttachEni { card, device, .. } => write!(f, " as card {card}, device {device}"),
            Self::SetGroups { groups, .. } => {
                let shown: Vec<_> = groups.iter().map(ToString::to_string).collect();
                write!(f, ": groups {}", shown.join(", "))
            }
            Self::Assign { amount, .. } => write!(f, ": {amount}"),
            Self::Unassign {
                addresses,
                prefixes,
                ..
            } => {
                let shown = addresses.iter().map(ToString::to_string);
                let shown = shown.chain(prefixes.iter().map(ToString::to_string));
                write!(f, ": {}", shown.collect::<Vec<_>>().join(", "))
            }
            _ => Ok(()),
        }
    }
}

/// How much to request, in the unit of the pool's mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Addresses(u16),
    Prefixes(u16),
    Ipv6Prefixes(u16),
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Addresses(n) => write!(f, "{n} addresses"),
            Self::Prefixes(n) => write!(f, "{n} prefixes"),
            Self::Ipv6Prefixes(n) => write!(f, "{n} IPv6 prefixes"),
        }
    }
}

/// Why an ADD was refused, with operands. `Display` gives the cause. The daemon adds the remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The instance's limit is reached: `used` of `limit` addresses are in use, and `wait` pods wait for the rest. `why`
    /// derives the limit.
    PodLimit {
        limit: u32,
        used: u32,
        wait: u32,
        why: String,
    },
    /// No address became free in time. The pool is growing.
    Empty { waited: Duration, growing: String },
    /// No address is free, and the pool may not grow.
    Fixed,
    /// An earlier request for the same sandbox is not finished.
    Wiring { waited: Duration },
    /// The subnet has no free address. EC2 is asked again after `retry_in`. Nor do `others` give addresses.
    Exhausted {
        subnet: SubnetId,
        others: usize,
        since: Duration,
        retry_in: Duration,
    },
    /// There is no subnet in which an ENI may be created.
    NoSubnet(NoClass),
    /// EC2 throttles this account.
    Throttled { retry_in: Duration },
    /// IAM denies an action that growth needs, for this reason if EC2 tells it.
    Denied { action: String, why: Option<String> },
    /// EC2 answers that it does not do what growth needs. `remedy` says what helps.
    Refused {
        message: String,
        remedy: String,
        retry_in: Duration,
    },
    /// EC2 does not answer, or its answer cannot be used. `remedy` is empty if nobody knows what helps.
    Unreachable {
        message: String,
        remedy: String,
        retry_in: Duration,
    },
    /// Every ENI slot is in use, some of them by interfaces that the pool does not manage.
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
                "{used} of {limit} pod addresses are in use, and {wait} other pods wait for the rest: {why}"
            ),
            Self::Empty { waited, growing } => write!(
                f,
                "no free address after {:.1} s; {growing}",
                waited.as_secs_f32()
            ),
            Self::Fixed => f.write_str(
                "no address is free, and the pool must not grow: DISABLE_NETWORK_RESOURCE_PROVISIONING is set",
            ),
            Self::Wiring { waited } => write!(
                f,
                "an earlier request for this sandbox is still being wired after {:.1} s",
                waited.as_secs_f32()
            ),
            Self::Exhausted {
                subnet,
                others,
                since,
                retry_in,
            } => {
                let also = match others {
                    0 => String::new(),
                    1 => ", and the other subnet gives none either".to_owned(),
                    n => format!(", and {n} other subnets give none either"),
                };
                write!(
                    f,
                    "subnet {subnet} has had no free address for {} s{also}; {}",
                    since.as_secs(),
                    next_call(*retry_in)
                )
            }
            Self::NoSubnet(NoClass { why, .. }) => write!(f, "no ENI can be created: {why}"),
            Self::Throttled { retry_in } => write!(
                f,
                "EC2 throttles this account; {}",
                next_call(*retry_in)
            ),
            Self::Denied { action, why } => {
                write!(f, "IAM denies {action}")?;
                why.as_ref().map_or(Ok(()), |why| write!(f, " because {why}"))
            }
            Self::Refused {
                message, retry_in, ..
            } => write!(f, "EC2 refuses {message}; {}", next_call(*retry_in)),
            Self::Unreachable {
                message, retry_in, ..
            } => write!(
                f,
                "EC2 is not available: {message}; {}",
                next_call(*retry_in)
            ),
            Self::EniLimit { why } => write!(f, "no ENI can be added: {why}"),
            Self::Stopping => f.write_str("the daemon is shutting down"),
        }
    }
}

fn next_call(retry_in: Duration) -> String {
    match retry_in.as_millis().div_ceil(1000) {
        0 => "the daemon is trying again now".to_owned(),
        seconds => format!("the daemon tries again in {seconds} s"),
    }
}
