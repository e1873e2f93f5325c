//! The objects of the world. They are values, so callers hold copies. [`security`] has the security groups.
//!
//! May use `ids`. Must not know the world's rules.

pub mod security;

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nettypes::Mac;

use self::security::Guard;
pub use self::security::SecurityGroup;
use crate::ids::{AttachmentId, EniId, GroupId, InstanceId, RouteTableId, SubnetId, VpcId};

/// Keys to values.
pub type Tags = BTreeMap<String, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vpc {
    pub id: VpcId,
    /// In the order of association; the first is the VPC's primary block.
    pub cidrs: Vec<Ipv4Net>,
    pub ipv6: Vec<Ipv6Net>,
    /// For interfaces without a security group.
    pub default_group: GroupId,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subnet {
    pub id: SubnetId,
    pub vpc: VpcId,
    pub zone: String,
    pub cidr: Ipv4Net,
    pub ipv6: Option<Ipv6Net>,
    pub tags: Tags,
}

impl Subnet {
    /// The VPC router: base plus one.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.cidr.network()) + 1)
    }
}

/// Where packets of its subnets go, by destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteTable {
    pub id: RouteTableId,
    pub vpc: VpcId,
    /// Whether it serves the VPC's subnets without a table of their own.
    pub main: bool,
    /// The subnets that are associated explicitly.
    pub subnets: Vec<SubnetId>,
    pub routes: Vec<Route>,
    pub tags: Tags,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    /// `local`, or the id of a gateway: `igw-…`, `nat-…`, `tgw-…`.
    pub target: String,
}

impl Route {
    #[must_use]
    pub fn new(destination: IpNet, target: &str) -> Self {
        Self {
            destination,
            target: target.to_owned(),
        }
    }

    /// The default route, and in a VPC with IPv6 also its default route.
    #[must_use]
    pub fn everything(target: &str, six: bool) -> Vec<Self> {
        let four = IpNet::V4(Ipv4Net::default());
        let both = [four]
            .into_iter()
            .chain(six.then(|| Ipv6Net::default().into()));
        both.map(|net| Self::new(net, target)).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Running,
    Terminated,
}

impl InstanceState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Terminated => "terminated",
        }
    }

    /// `instanceState.code`.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Running => 16,
            Self::Terminated => 48,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    pub id: InstanceId,
    pub instance_type: String,
    pub state: InstanceState,
    pub subnet: SubnetId,
    pub vpc: VpcId,
    pub zone: String,
    /// The interface at card 0, device 0.
    pub primary: EniId,
    /// The role whose credentials IMDS serves.
    pub role: String,
    pub launched: Duration,
    pub tags: Tags,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InterfaceType {
    #[default]
    Interface,
    Efa,
    EfaOnly,
    Trunk,
    Branch,
}

impl InterfaceType {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Interface => "interface",
            Self::Efa => "efa",
            Self::EfaOnly => "efa-only",
            Self::Trunk => "trunk",
            Self::Branch => "branch",
        }
    }

    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [
            Self::Interface,
            Self::Efa,
            Self::EfaOnly,
            Self::Trunk,
            Self::Branch,
        ]
        .into_iter()
        .find(|t| t.name() == name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachmentState {
    Attaching,
    Attached,
    Detaching,
}

impl AttachmentState {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Attaching => "attaching",
            Self::Attached => "attached",
            Self::Detaching => "detaching",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    pub id: AttachmentId,
    pub instance: InstanceId,
    pub card: u32,
    pub device: u32,
    pub state: AttachmentState,
    pub delete_on_termination: bool,
    pub at: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkInterface {
    pub id: EniId,
    pub subnet: SubnetId,
    pub vpc: VpcId,
    pub zone: String,
    pub mac: Mac,
    pub description: String,
    pub groups: Vec<GroupId>,
    pub interface_type: InterfaceType,
    /// Created and managed by an AWS service: the customer cannot change it.
    pub requester_managed: bool,
    pub source_dest_check: bool,
    pub attachment: Option<Attachment>,
    /// The primary address first.
    pub ipv4: Vec<Ipv4Addr>,
    pub ipv4_prefixes: Vec<Ipv4Net>,
    pub ipv6: Vec<Ipv6Addr>,
    pub ipv6_prefixes: Vec<Ipv6Net>,
    pub tags: Tags,
}

impl NetworkInterface {
    /// `status`, as far as it follows from the attachment.
    #[must_use]
    pub const fn status(&self) -> &'static str {
        if self.attachment.is_some() {
            "in-use"
        } else {
            "available"
        }
    }

    /// The primary address; `efa-only` interfaces have none.
    #[must_use]
    pub fn primary(&self) -> Option<Ipv4Addr> {
        self.ipv4.first().copied()
    }

    /// Everything that the fabric delivers to this interface, as networks.
    #[must_use]
    pub fn owned(&self) -> Vec<IpNet> {
        let four = self.ipv4.iter().map(|a| IpNet::from(IpAddr::from(*a)));
        let six = self.ipv6.iter().map(|a| IpNet::from(IpAddr::from(*a)));
        let four_nets = self.ipv4_prefixes.iter().copied().map(IpNet::from);
        let six_nets = self.ipv6_prefixes.iter().copied().map(IpNet::from);
        four.chain(four_nets).chain(six).chain(six_nets).collect()
    }

    /// Whether `address` belongs to this interface, on its own or as part of a prefix.
    #[must_use]
    pub fn owns(&self, address: IpAddr) -> bool {
        self.owned().iter().any(|n| n.contains(&address))
    }
}

/// A change for the fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The interface was attached: a device appears, and these destinations are delivered to it.
    Attached {
        eni: Box<NetworkInterface>,
        delivers: Vec<IpNet>,
    },
    /// A detach began: packets are dropped immediately, the device still exists.
    Cut { eni: EniId },
    /// The device is gone.
    Detached { eni: EniId, instance: InstanceId },
    /// An address or prefix of an attached interface became usable.
    Added { eni: EniId, net: IpNet },
    /// An address or prefix of an attached interface is gone.
    Removed { eni: EniId, net: IpNet },
    /// The source and destination check of an attached interface.
    Check { eni: EniId, enabled: bool },
    /// What attached interfaces may send and receive. Interfaces without a guard may send and receive everything.
    Guarded { guards: Vec<Guard> },
    /// The VPC has another block.
    Associated { block: Ipv4Net },
}

impl Change {
    /// The interface of the new device.
    #[must_use]
    pub const fn attached(&self) -> Option<&NetworkInterface> {
        match self {
            Self::Attached { eni, .. } => Some(eni),
            _ => None,
        }
    }
}
