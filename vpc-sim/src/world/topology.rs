//! What an operator of the VPC sets up: VPCs, their blocks, subnets, and addresses that others use. `routes` has the
//! route tables, `groups` the security groups.
//!
//! Not calls of EC2's API: they are neither throttled nor delayed. May use `model`, `address` and `ids`. Must not know
//! interfaces or instances.

mod groups;
mod routes;

use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::{
    Place, World,
    address::pool::{Pool, V4_BLOCK, V6_BLOCK},
    model::{Change, Subnet, Tags, Vpc},
};
use crate::ids::{SubnetId, VpcId};

impl World {
    /// A VPC with its default security group and its main route table, which leads to the internet.
    pub fn add_vpc(&mut self, cidrs: Vec<Ipv4Net>, ipv6: Vec<Ipv6Net>) -> VpcId {
        let id = VpcId::draw(&mut self.dice.ids);
        let default_group = self.add_default_group(&id, !ipv6.is_empty());
        let vpc = Vpc {
            id: id.clone(),
            cidrs,
            ipv6,
            default_group,
            tags: Tags::new(),
        };
        self.vpcs.insert(id.clone(), vpc);
        self.add_main_route_table(&id);
        id
    }

    /// AssociateVpcCidrBlock, as called by an operator: adds another CIDR block to the VPC. False if there is no such
    /// VPC, or the block overlaps another one.
    pub fn associate_block(&mut self, vpc: &VpcId, block: Ipv4Net) -> bool {
        let Some(vpc) = self.vpcs.get_mut(vpc) else {
            return false;
        };
        let overlaps = |own: &Ipv4Net| own.contains(&block) || block.contains(own);
        if vpc.cidrs.iter().any(overlaps) {
            return false;
        }
        vpc.cidrs.push(block);
        self.changes.push(Change::Associated { block });
        true
    }

    /// A subnet: /16 to /28, and /64 in IPv6. `zone` is the letter after the region's name.
    ///
    /// # Panics
    /// If `cidr` or `ipv6` has another length, or `cidr` is not in a block of the VPC or overlaps another subnet: the
    /// topology comes from the test, not from a request.
    pub fn add_subnet(
        &mut self,
        vpc: &VpcId,
        cidr: Ipv4Net,
        ipv6: Option<Ipv6Net>,
        zone: char,
    ) -> SubnetId {
        assert!(
            (16..=28).contains(&cidr.prefix_len()),
            "a subnet is /16 to /28, not {cidr}"
        );
        assert!(
            ipv6.is_none_or(|n| n.prefix_len() == 64),
            "an IPv6 subnet is a /64, not {ipv6:?}"
        );
        let blocks = self.vpcs.get(vpc).map_or(&[][..], |v| &v.cidrs);
        assert!(
            blocks.iter().any(|block| block.contains(&cidr)),
            "{cidr} is in none of the VPC's blocks: {blocks:?}"
        );
        let overlaps = |s: &Subnet| s.cidr.contains(&cidr) || cidr.contains(&s.cidr);
        assert!(
            !self.subnets().any(|s| s.vpc == *vpc && overlaps(s)),
            "{cidr} overlaps another subnet of the VPC"
        );
        let id = SubnetId::draw(&mut self.dice.ids);
        let subnet = Subnet {
            id: id.clone(),
            vpc: vpc.clone(),
            zone: format!("{}{zone}", self.region),
            cidr: cidr.trunc(),
            ipv6: ipv6.map(|n| n.trunc()),
            tags: Tags::new(),
        };
        let v4 = Pool::new(
            u32::from(cidr.network()).into(),
            32,
            cidr.prefix_len(),
            V4_BLOCK,
        );
        let v6 = ipv6.map(|n| Pool::new(n.network().into(), 128, 64, V6_BLOCK));
        self.places.insert(id.clone(), Place { subnet, v4, v6 });
        self.first_subnet.get_or_insert_with(|| id.clone());
        id
    }

    /// Marks an address as used by others: other users of the subnet, or to fragment it. False if it cannot be used.
    pub fn occupy(&mut self, subnet: &SubnetId, address: IpAddr) -> bool {
        let Some(place) = self.places.get_mut(subnet) else {
            return false;
        };
        match address {
            IpAddr::V4(a) => place.v4.take(u32::from(a).into()).is_ok(),
            IpAddr::V6(a) => place.v6.as_mut().is_some_and(|p| p.take(a.into()).is_ok()),
        }
    }

    /// The opposite of [`World::occupy`].
    pub fn vacate(&mut self, subnet: &SubnetId, address: IpAddr) {
        let Some(place) = self.places.get_mut(subnet) else {
            return;
        };
        match address {
            IpAddr::V4(a) => place.v4.give_back(u32::from(a).into()),
            IpAddr::V6(a) => place.v6.iter_mut().for_each(|p| p.give_back(a.into())),
        }
    }

    /// Lets others use addresses of the subnet until only `left` are free: the lowest ones.
    pub fn crowd(&mut self, subnet: &SubnetId, left: u128) {
        let Some(place) = self.places.get_mut(subnet) else {
            return;
        };
        let all: Vec<_> = place.subnet.cidr.hosts().collect();
        for address in all.into_iter().rev() {
            if place.v4.available() <= left {
                return;
            }
            // One that is in use stays so.
            place.v4.take(u32::from(address).into()).unwrap_or_default();
        }
    }

    /// Lets others use one address of every free block, so that no prefix can be assigned.
    pub fn fragment(&mut self, subnet: &SubnetId) {
        let Some(place) = self.places.get_mut(subnet) else {
            return;
        };
        let Ok(blocks) = place.subnet.cidr.subnets(V4_BLOCK) else {
            return;
        };
        for block in blocks {
            let first = u128::from(u32::from(block.network()));
            if place.v4.check_block(first).is_ok() {
                place.v4.take(first + 7).unwrap_or_default();
            }
        }
    }
}
