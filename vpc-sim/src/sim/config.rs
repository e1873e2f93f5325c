//! What a simulation starts with: one VPC and its subnets.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use crate::world::{World, WorldConfig, model::Tags};

/// A subnet to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetConfig {
    pub cidr: Ipv4Net,
    pub ipv6: Option<Ipv6Net>,
    /// The letter of its availability zone.
    pub zone: char,
    pub tags: Tags,
}

impl SubnetConfig {
    /// A subnet without IPv6 and without tags.
    #[must_use]
    pub const fn new(cidr: Ipv4Net, zone: char) -> Self {
        Self {
            cidr,
            ipv6: None,
            zone,
            tags: Tags::new(),
        }
    }

    #[must_use]
    pub fn tagged(mut self, key: &str, value: &str) -> Self {
        self.tags.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// One VPC and its subnets.
#[derive(Clone, Debug)]
pub struct SimConfig {
    pub world: WorldConfig,
    pub vpc_cidrs: Vec<Ipv4Net>,
    pub vpc_ipv6: Vec<Ipv6Net>,
    /// Instances without a subnet use the first one.
    pub subnets: Vec<SubnetConfig>,
}

impl Default for SimConfig {
    fn default() -> Self {
        let net = |a, b, c, d, len| Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len);
        Self {
            world: WorldConfig::default(),
            vpc_cidrs: vec![net(10, 0, 0, 0, 16)],
            vpc_ipv6: Vec::new(),
            subnets: vec![SubnetConfig::new(net(10, 0, 0, 0, 20), 'a')],
        }
    }
}

impl SimConfig {
    /// The default VPC with IPv6 in its subnet, as EKS needs it for IPv6 clusters.
    #[must_use]
    pub fn dual_stack() -> Self {
        let net = |len| {
            Ipv6Net::new_assert(
                Ipv6Addr::new(0x2600, 0x1f14, 0x0abc, 0xde00, 0, 0, 0, 0),
                len,
            )
        };
        let mut config = Self {
            vpc_ipv6: vec![net(56)],
            ..Self::default()
        };
        for subnet in &mut config.subnets {
            subnet.ipv6 = Some(net(64));
        }
        config
    }

    /// With another block of the VPC.
    #[must_use]
    pub fn with_block(mut self, block: Ipv4Net) -> Self {
        self.vpc_cidrs.push(block);
        self
    }

    /// With another subnet, in a block of the VPC.
    #[must_use]
    pub fn with_subnet(mut self, subnet: SubnetConfig) -> Self {
        self.subnets.push(subnet);
        self
    }

    /// The world of this configuration, before anything runs in it.
    ///
    /// # Panics
    /// If a subnet is not in a block of the VPC or overlaps another one, or a tag is invalid.
    #[must_use]
    pub fn build(self) -> World {
        let mut world = World::new(self.world);
        let vpc = world.add_vpc(self.vpc_cidrs, self.vpc_ipv6);
        for s in self.subnets {
            let id = world.add_subnet(&vpc, s.cidr, s.ipv6, s.zone);
            let tagged = world.tag(&[id.to_string()], &s.tags);
            tagged.expect("the tags of a subnet are valid");
        }
        world
    }
}
