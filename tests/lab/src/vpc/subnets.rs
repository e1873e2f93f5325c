//! VPCs with several subnets and security groups, for nodes whose pods are not in their own subnet.

use std::{io, net::IpAddr};

use ipnet::Ipv4Net;
use vpc_sim::{
    LaunchInstance, SimConfig, SubnetConfig,
    ids::{EniId, GroupId, SubnetId},
    world::{
        model::{InterfaceType, Tags, security::Rule},
        request::{AttachNetworkInterface, Attribute, CreateNetworkInterface, Pick4},
    },
};

use super::Lab;
use crate::{error::with_causes, node::Node};

/// The tag with which an operator offers a subnet to pods.
pub const POD_SUBNET_TAG: &str = "kubernetes.io/role/cni";

/// An interface that an operator attaches to a node.
#[derive(Clone, Debug)]
pub struct ByHand {
    pub subnet: SubnetId,
    /// The VPC's default group, if it is empty.
    pub groups: Vec<GroupId>,
    pub interface_type: InterfaceType,
    pub card: u32,
    pub device: u32,
    pub description: String,
    /// In addition to the primary address.
    pub ipv4: Pick4,
    pub tags: Tags,
}

impl ByHand {
    /// An ordinary one as device 1 of the first card, with only the primary address.
    #[must_use]
    pub const fn plain(subnet: SubnetId) -> Self {
        Self {
            subnet,
            groups: Vec::new(),
            interface_type: InterfaceType::Interface,
            card: 0,
            device: 1,
            description: String::new(),
            ipv4: Pick4::Nothing,
            tags: Tags::new(),
        }
    }
}

/// The default VPC, whose nodes are in 10.0.0.0/20, with a second block, 100.64.0.0/16, and these subnets in it, in the
/// nodes' zone and tagged for pods.
///
/// # Errors
/// If a CIDR cannot be parsed.
pub fn with_pod_subnets(cidrs: &[&str]) -> Result<SimConfig, ipnet::AddrParseError> {
    let mut config = SimConfig::default().with_block("100.64.0.0/16".parse()?);
    for cidr in cidrs {
        let subnet = SubnetConfig::new(cidr.parse()?, 'a').tagged(POD_SUBNET_TAG, "1");
        config = config.with_subnet(subnet);
    }
    Ok(config)
}

impl Lab {
    /// The subnet with this CIDR.
    ///
    /// # Errors
    /// If there is none.
    pub fn subnet(&self, cidr: &str) -> io::Result<SubnetId> {
        let net: Ipv4Net = cidr.parse().map_err(io::Error::other)?;
        let found = self
            .sim
            .world()
            .subnet_at(net)
            .map(|subnet| subnet.id.clone());
        found.ok_or_else(|| io::Error::other(format!("no subnet is {cidr}")))
    }

    /// The CIDR of the subnet in which EC2 assigned this address.
    #[must_use]
    pub fn subnet_of(&self, address: IpAddr) -> Option<Ipv4Net> {
        let world = self.sim.world();
        let eni = world.owner_of(address)?;
        Some(world.subnet(&eni.subnet)?.cidr)
    }

    /// As [`Lab::bare_node`], in another subnet than the first one, and in other groups than the default one.
    ///
    /// # Errors
    /// If the instance cannot be launched.
    pub fn bare_node_in(
        &self,
        kind: &str,
        (subnet, groups): (&SubnetId, &[GroupId]),
        settings: &[(&str, &str)],
    ) -> io::Result<Node> {
        let launch = LaunchInstance {
            groups: groups.to_vec(),
            ..LaunchInstance::plain(kind, subnet.clone())
        };
        self.launch(launch, settings)
    }

    /// A security group of the VPC that lets everything out, and in only what `ingress` allows.
    ///
    /// # Errors
    /// If the fabric cannot apply it.
    pub fn group(&self, name: &str, ingress: Vec<Rule>) -> io::Result<GroupId> {
        let group = {
            let mut world = self.sim.world();
            let vpc = world.vpcs().next().map(|vpc| vpc.id.clone());
            let vpc = vpc.ok_or_else(|| io::Error::other("no VPC"))?;
            let group = world.add_group(&vpc, name, name);
            world.set_ingress(&group, ingress);
            group
        };
        self.settled()?;
        Ok(group)
    }

    /// Moves an interface to other security groups.
    ///
    /// # Errors
    /// EC2's error, or the fabric's.
    pub fn set_groups(&self, eni: &EniId, groups: &[GroupId]) -> io::Result<()> {
        let (attribute, now) = (Attribute::Groups(groups.to_vec()), self.sim.now());
        let changed = self
            .sim
            .world()
            .modify_network_interface(eni, attribute, now);
        changed.map_err(|e| with_causes(&e))?;
        self.settled()
    }

    /// Creates an interface and attaches it to a node, as an operator does in the console.
    ///
    /// # Errors
    /// EC2's error, or the fabric's.
    pub fn attach(&self, node: &Node, eni: ByHand) -> io::Result<EniId> {
        let now = self.sim.now();
        let create = CreateNetworkInterface {
            groups: eni.groups,
            interface_type: eni.interface_type,
            description: eni.description,
            ipv4: eni.ipv4,
            tags: eni.tags,
            ..CreateNetworkInterface::plain(eni.subnet)
        };
        let id = {
            let mut world = self.sim.world();
            let created = world.create_network_interface(create, now);
            let id = created.map_err(|e| with_causes(&e))?.id;
            let attach = AttachNetworkInterface {
                eni: id.clone(),
                instance: node.instance.id.clone(),
                card: eni.card,
                device: eni.device,
            };
            let attached = world.attach_network_interface(&attach, now);
            attached.map_err(|e| with_causes(&e))?;
            id
        };
        self.settled()?;
        Ok(id)
    }

    fn settled(&self) -> io::Result<()> {
        self.sim.settle().map_err(|e| with_causes(&e))
    }
}
