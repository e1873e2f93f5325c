//! Security groups: what their interfaces may receive and send, and what follows for one interface.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::Tags;
use crate::ids::{EniId, GroupId, VpcId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecurityGroup {
    pub id: GroupId,
    pub vpc: VpcId,
    pub name: String,
    pub description: String,
    /// A packet is allowed if one rule of one group of the interface allows it.
    pub ingress: Vec<Rule>,
    pub egress: Vec<Rule>,
    pub tags: Tags,
}

/// The packets of one protocol from, or to, one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub protocol: Protocol,
    pub peer: Peer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    All,
    /// ICMP for IPv4, all types.
    Icmp,
    /// To one of these ports.
    Tcp {
        from: u16,
        to: u16,
    },
    Udp {
        from: u16,
        to: u16,
    },
}

impl Protocol {
    /// TCP to one port.
    #[must_use]
    pub const fn tcp(port: u16) -> Self {
        Self::Tcp {
            from: port,
            to: port,
        }
    }

    /// UDP to one port.
    #[must_use]
    pub const fn udp(port: u16) -> Self {
        Self::Udp {
            from: port,
            to: port,
        }
    }

    /// `ipProtocol`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "-1",
            Self::Icmp => "icmp",
            Self::Tcp { .. } => "tcp",
            Self::Udp { .. } => "udp",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    Block(IpNet),
    /// The interfaces of this group.
    Group(GroupId),
}

impl Rule {
    #[must_use]
    pub const fn new(protocol: Protocol, peer: Peer) -> Self {
        Self { protocol, peer }
    }

    /// Every packet of the group's interfaces.
    #[must_use]
    pub fn members(group: &GroupId) -> Self {
        Self::new(Protocol::All, Peer::Group(group.clone()))
    }

    /// Every packet of IPv4, and of IPv6 in a VPC that has it.
    #[must_use]
    pub fn anything(six: bool) -> Vec<Self> {
        let four = IpNet::V4(Ipv4Net::default());
        let both = [four]
            .into_iter()
            .chain(six.then(|| Ipv6Net::default().into()));
        both.map(|block| Self::new(Protocol::All, Peer::Block(block)))
            .collect()
    }
}

/// The rules of an attached interface's groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    pub eni: EniId,
    /// What it may receive; everything, if absent.
    pub ingress: Option<Vec<Allowed>>,
    /// What it may send.
    pub egress: Option<Vec<Allowed>>,
}

/// The packets of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    pub protocol: Protocol,
    pub peer: Peers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peers {
    Block(IpNet),
    Interfaces(Vec<EniId>),
}
