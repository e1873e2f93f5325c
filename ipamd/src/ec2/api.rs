//! The calls, their answers and the interface. Only types: [`super::classify`] interprets failures.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use planner::{Amount, AttachmentId, EniId, Mac, SecurityGroupId, SubnetId};

/// One EC2 action with its parameters.
#[derive(Clone, Debug)]
pub enum Call {
    CreateNetworkInterface {
        token: String,
        subnet: SubnetId,
        groups: Vec<SecurityGroupId>,
        description: String,
        tags: BTreeMap<String, String>,
        amount: Amount,
    },
    AttachNetworkInterface {
        eni: EniId,
        instance: String,
        card: u16,
        device: u16,
    },
    DeleteOnTermination {
        eni: EniId,
        attachment: AttachmentId,
    },
    /// ModifyNetworkInterfaceAttribute: the ENI gets these security groups.
    SetGroups {
        eni: EniId,
        groups: Vec<SecurityGroupId>,
    },
    DetachNetworkInterface {
        attachment: AttachmentId,
    },
    DeleteNetworkInterface {
        eni: EniId,
    },
    /// AssignIpv6Addresses, if the amount is in IPv6 prefixes.
    AssignPrivateIpAddresses {
        eni: EniId,
        amount: Amount,
    },
    UnassignPrivateIpAddresses {
        eni: EniId,
        addresses: Vec<Ipv4Addr>,
        prefixes: Vec<Ipv4Net>,
    },
    UnassignIpv6Addresses {
        eni: EniId,
        prefixes: Vec<Ipv6Net>,
    },
    /// DescribeNetworkInterfaces with filters, all pages (never with a list of ids: one unknown id fails the whole
    /// call).
    DescribeNetworkInterfaces {
        filters: Vec<(String, String)>,
    },
    /// With filters, each with all values that it allows; all pages.
    DescribeSubnets {
        filters: Vec<(String, Vec<String>)>,
    },
    DescribeRouteTables {
        vpc: String,
    },
}

impl Call {
    /// The action's name in the EC2 API, as in IAM policies and metrics.
    #[must_use]
    pub const fn action(&self) -> &'static str {
        match self {
            Self::CreateNetworkInterface { .. } => "CreateNetworkInterface",
            Self::AttachNetworkInterface { .. } => "AttachNetworkInterface",
            Self::DeleteOnTermination { .. } | Self::SetGroups { .. } => {
                "ModifyNetworkInterfaceAttribute"
            }
            Self::DetachNetworkInterface { .. } => "DetachNetworkInterface",
            Self::DeleteNetworkInterface { .. } => "DeleteNetworkInterface",
            Self::AssignPrivateIpAddresses {
                amount: Amount::Ipv6Prefixes(_),
                ..
            } => "AssignIpv6Addresses",
            Self::AssignPrivateIpAddresses { .. } => "AssignPrivateIpAddresses",
            Self::UnassignIpv6Addresses { .. } => "UnassignIpv6Addresses",
            Self::UnassignPrivateIpAddresses { .. } => "UnassignPrivateIpAddresses",
            Self::DescribeNetworkInterfaces { .. } => "DescribeNetworkInterfaces",
            Self::DescribeSubnets { .. } => "DescribeSubnets",
            Self::DescribeRouteTables { .. } => "DescribeRouteTables",
        }
    }

    /// Whether it only reads, so that a lost answer leaves no doubt.
    #[must_use]
    pub const fn reads(&self) -> bool {
        matches!(
            self,
            Self::DescribeNetworkInterfaces { .. }
                | Self::DescribeSubnets { .. }
                | Self::DescribeRouteTables { .. }
        )
    }
}

/// EC2's answer.
#[derive(Clone, Debug)]
pub enum Reply {
    Interface(Box<Interface>),
    Attached(AttachmentId),
    Assigned {
        addresses: Vec<IpAddr>,
        prefixes: Vec<IpNet>,
    },
    Interfaces(Vec<Interface>),
    Subnets(Vec<Subnet>),
    RouteTables(Vec<RouteTable>),
    Done,
}

/// A subnet, as EC2 describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub subnet: SubnetId,
    pub cidr: Ipv4Net,
    /// `None` if EC2 does not say.
    pub zone: Option<String>,
    /// Free addresses.
    pub free: u32,
    pub tags: BTreeMap<String, String>,
}

/// A route table, as far as it matters which one a subnet uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    pub id: String,
    /// It is used by every subnet of the VPC that has no other one.
    pub main: bool,
    pub subnets: BTreeSet<SubnetId>,
}

/// An ENI in EC2's own terms, before the decision about its owner.
#[derive(Clone, Debug)]
pub struct Interface {
    pub eni: EniId,
    pub mac: Mac,
    pub subnet: SubnetId,
    /// `None` for an EFA-only interface, which has no address at all, and in a subnet of IPv6 only.
    pub primary: Option<Ipv4Addr>,
    pub secondary: Vec<Ipv4Addr>,
    /// Of both families. Single IPv6 addresses belong to the instance, and are left out.
    pub prefixes: Vec<IpNet>,
    /// `None` if EC2 does not say, likewise the zone.
    pub vpc: Option<String>,
    pub zone: Option<String>,
    /// `available`, `in-use`, …
    pub status: String,
    /// `interface`, `efa`, `trunk`, …
    pub interface_type: String,
    /// Requester-managed, or managed by an operator such as EKS Auto Mode.
    pub managed_by_aws: bool,
    pub groups: Vec<SecurityGroupId>,
    /// As its creator described it.
    pub description: String,
    /// The account or AWS service that created it, if EC2 says.
    pub requester: Option<String>,
    pub tags: BTreeMap<String, String>,
    pub attachment: Option<Attachment>,
}

/// How an [`Interface`] is attached, in EC2's own terms.
#[derive(Clone, Debug)]
pub struct Attachment {
    pub id: AttachmentId,
    pub instance: Option<String>,
    /// The account that owns the instance.
    pub account: Option<String>,
    pub card: u16,
    pub device: u16,
    /// `attaching`, `attached`, `detaching`, `detached`.
    pub status: String,
}

/// A failed call. [`super::classify`] interprets it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {message}")]
pub struct CallError {
    pub action: &'static str,
    /// EC2's error code; `None` if no answer could be read.
    pub code: Option<String>,
    pub message: String,
    /// True if the request cannot have taken effect: it was never sent, or EC2 refused it.
    pub refused: bool,
}

pub type CallFuture<'a> = Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + 'a>>;

/// The interface for EC2 calls.
pub trait Ec2: Send + Sync {
    /// Sends `call` once and waits for its answer, at most until the configured timeout.
    fn call(&self, call: Call) -> CallFuture<'_>;
}
