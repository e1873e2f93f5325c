//! Where new ENIs are created, what they are like, and which ENIs serve pods: plain values.
//!
//! A node has one class of ENIs. Three settings fill it: neither (the subnet of the primary ENI), subnet discovery (subnets
//! by their tags) and custom networking (the subnets and groups of an ENIConfig).

use std::{collections::BTreeMap, fmt};

use ipnet::Ipv4Net;

use super::names::{SecurityGroupId, SubnetId};

/// Where the pool creates ENIs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The subnet of the primary ENI.
    pub subnet: SubnetId,
    /// The class of the node's ENIs, or why it is not known.
    pub class: Result<EniClass, NoClass>,
    /// What EC2 said about subnets before the restart.
    pub subnets: SubnetList,
}

impl Placement {
    /// New ENIs are like the primary one.
    #[must_use]
    pub fn like_primary(subnet: SubnetId) -> Self {
        Self {
            subnet,
            class: Ok(EniClass::like_primary()),
            subnets: SubnetList::default(),
        }
    }
}

/// What new ENIs are like, and which ENIs serve pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EniClass {
    /// Its origin, for people: `ENIConfig us-west-2a`.
    pub name: String,
    pub subnets: Selector,
    /// `None`: those of the primary ENI.
    pub security_groups: Option<Vec<SecurityGroupId>>,
    /// Whether the primary ENI serves pods.
    pub primary_serves: bool,
}

impl EniClass {
    /// The class of a node without further settings.
    #[must_use]
    pub fn like_primary() -> Self {
        Self {
            name: "the primary ENI".to_owned(),
            subnets: Selector::Primary,
            security_groups: None,
            primary_serves: true,
        }
    }

    /// The class of a node with subnet discovery.
    #[must_use]
    pub fn by_tags(cluster: Option<String>) -> Self {
        Self {
            name: "subnet discovery".to_owned(),
            subnets: Selector::Tagged { cluster },
            ..Self::like_primary()
        }
    }
}

/// In which subnets ENIs of a class are created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// In the subnet of the primary ENI.
    Primary,
    /// In those of the node's VPC and zone whose tags allow it (see [`crate::scope::subnets`]). `cluster` is this
    /// cluster's name, if it is known.
    Tagged { cluster: Option<String> },
    /// In these, as far as they are in the node's zone.
    Listed(Vec<Listed>),
}

/// For people and logs.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary ENI's"),
            Self::Tagged { .. } => f.write_str("those that are tagged"),
            Self::Listed(listed) => {
                let ids: Vec<_> = listed.iter().map(|one| one.subnet.0.as_str()).collect();
                f.write_str(&ids.join(", "))
            }
        }
    }
}

/// One subnet of an ENIConfig.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub subnet: SubnetId,
    /// Subnets of a lower weight are used only while no subnet of a higher weight gives addresses.
    pub weight: u32,
}

/// Why the class of the node's ENIs is not known, so that no ENI is created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoClass {
    /// A clause, with operands.
    pub why: String,
    pub remedy: String,
}

impl fmt::Display for NoClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What EC2 says about subnets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubnetList {
    /// The zone of the node, if it is known.
    pub zone: Option<String>,
    pub subnets: Vec<Candidate>,
}

/// A subnet in which ENIs could be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub subnet: SubnetId,
    pub zone: Option<String>,
    pub cidr: Ipv4Net,
    /// Free addresses, when EC2 listed it.
    pub free: u32,
    pub tags: BTreeMap<String, String>,
    /// The route table of its packets. `None` if it is not known.
    pub route_table: Option<String>,
}

/// Which subnets EC2 is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inquiry {
    /// All of the node's VPC and zone.
    OfZone,
    These(Vec<SubnetId>),
}

/// Why no new pod gets an address of an ENI. Its pods keep theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// The primary ENI does not serve pods: custom networking.
    Primary,
    /// A tag of its subnet excludes it.
    Excluded,
    /// The node's class has another subnet or other security groups by now.
    OtherClass,
}

impl Closed {
    pub const ALL: [Self; 3] = [Self::Primary, Self::Excluded, Self::OtherClass];

    /// Its name in metrics and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Excluded => "excluded",
            Self::OtherClass => "other_class",
        }
    }
}
