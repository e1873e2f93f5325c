//! VPCs, subnets, route tables and security groups.

use std::collections::BTreeMap;

use ipnet::{IpNet, Ipv6Net};

use super::tags;
use crate::{
    ec2::xml::Xml,
    ids::{RouteTableId, SubnetId},
    world::{
        World,
        model::{
            Route, RouteTable, SecurityGroup, Subnet, Vpc,
            security::{Peer, Protocol, Rule},
        },
        request::Page,
    },
};

pub fn subnets(world: &World, page: &Page<(Subnet, u128)>) -> Xml {
    let mut x = Xml::default();
    x.list("subnetSet", &page.items, |x, (s, available)| {
        let (region, account) = (world.region(), world.account());
        x.leaf("subnetId", &s.id)
            .leaf(
                "subnetArn",
                format!("arn:aws:ec2:{region}:{account}:subnet/{}", s.id),
            )
            .leaf("state", "available")
            .leaf("vpcId", &s.vpc)
            .leaf("cidrBlock", s.cidr)
            .leaf("availableIpAddressCount", available)
            .leaf("availabilityZone", &s.zone)
            .leaf("ownerId", account)
            .leaf("defaultForAz", false)
            .leaf("mapPublicIpOnLaunch", false)
            .leaf("assignIpv6AddressOnCreation", false)
            .leaf("ipv6Native", false);
        v6_blocks(x, &s.id.0, s.ipv6.as_slice());
        tags(x, &s.tags);
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

/// The id of the association between `owner` (a VPC or subnet) and one of its CIDR blocks: it starts with the kind of
/// the owner.
fn association(owner: &str, index: usize) -> String {
    // Our ids start with a zero, followed by sixteen digits: the index replaces the zero.
    owner.replacen("-0", &format!("-cidr-assoc-{index:x}"), 1)
}

/// The maximum number of IPv4 blocks before a VPC's first IPv6 block, for numbering associations.
const V4_BLOCKS: usize = 8;

fn v6_blocks(x: &mut Xml, owner: &str, blocks: &[Ipv6Net]) {
    x.list(
        "ipv6CidrBlockAssociationSet",
        blocks.iter().enumerate(),
        |x, (i, n)| {
            x.leaf("associationId", association(owner, V4_BLOCKS + i))
                .leaf("ipv6CidrBlock", n)
                .tree("ipv6CidrBlockState", |x| {
                    x.leaf("state", "associated");
                });
        },
    );
}

pub fn vpcs(world: &World, page: &Page<Vpc>) -> Xml {
    let mut x = Xml::default();
    x.list("vpcSet", &page.items, |x, v| {
        x.leaf("vpcId", &v.id)
            .leaf("ownerId", world.account())
            .leaf("state", "available")
            .maybe("cidrBlock", v.cidrs.first())
            .leaf("dhcpOptionsId", "default")
            .leaf("instanceTenancy", "default")
            .leaf("isDefault", false);
        x.list(
            "cidrBlockAssociationSet",
            v.cidrs.iter().enumerate(),
            |x, (i, n)| {
                x.leaf("associationId", association(&v.id.0, i))
                    .leaf("cidrBlock", n)
                    .tree("cidrBlockState", |x| {
                        x.leaf("state", "associated");
                    });
            },
        );
        v6_blocks(x, &v.id.0, &v.ipv6);
        tags(x, &v.tags);
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

pub fn route_tables(world: &World, page: &Page<RouteTable>) -> Xml {
    let mut x = Xml::default();
    x.list("routeTableSet", &page.items, |x, t| {
        x.leaf("routeTableId", &t.id)
            .leaf("vpcId", &t.vpc)
            .leaf("ownerId", world.account());
        x.list("routeSet", &t.routes, route);
        let main = t.main.then_some(None);
        let bonds = main.into_iter().chain(t.subnets.iter().map(Some));
        x.list("associationSet", bonds, |x, subnet| {
            route_table_association(x, &t.id, subnet)
        });
        x.texts::<String>("propagatingVgwSet", []);
        tags(x, &t.tags);
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

fn route(x: &mut Xml, route: &Route) {
    let family = match route.destination {
        IpNet::V4(_) => "destinationCidrBlock",
        IpNet::V6(_) => "destinationIpv6CidrBlock",
    };
    let (target, origin) = match route.target.split('-').next() {
        Some("local") => ("gatewayId", "CreateRouteTable"),
        Some("nat") => ("natGatewayId", "CreateRoute"),
        Some("tgw") => ("transitGatewayId", "CreateRoute"),
        _ => ("gatewayId", "CreateRoute"),
    };
    x.leaf(family, route.destination)
        .leaf(target, &route.target)
        .leaf("state", "active")
        .leaf("origin", origin);
}

/// `subnet`: none for the association that makes it the main table.
fn route_table_association(x: &mut Xml, table: &RouteTableId, subnet: Option<&SubnetId>) {
    let id = match subnet {
        Some(subnet) => subnet.0.replacen("subnet-", "rtbassoc-", 1),
        None => table.0.replacen("rtb-", "rtbassoc-", 1),
    };
    x.leaf("routeTableAssociationId", id)
        .leaf("routeTableId", table)
        .maybe("subnetId", subnet)
        .leaf("main", subnet.is_none())
        .tree("associationState", |x| {
            x.leaf("state", "associated");
        });
}

pub fn groups(world: &World, page: &Page<SecurityGroup>) -> Xml {
    let mut x = Xml::default();
    x.list("securityGroupInfo", &page.items, |x, g| {
        x.leaf("ownerId", world.account())
            .leaf("groupId", &g.id)
            .leaf("groupName", &g.name)
            .leaf("groupDescription", &g.description)
            .leaf("vpcId", &g.vpc);
        permissions(x, world, "ipPermissions", &g.ingress);
        permissions(x, world, "ipPermissionsEgress", &g.egress);
        tags(x, &g.tags);
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

/// One permission for each protocol, with all its peers.
fn permissions(x: &mut Xml, world: &World, name: &str, rules: &[Rule]) {
    let mut by_protocol: BTreeMap<Protocol, Vec<&Peer>> = BTreeMap::new();
    for rule in rules {
        by_protocol
            .entry(rule.protocol)
            .or_default()
            .push(&rule.peer);
    }
    x.list(name, by_protocol, |x, (protocol, peers)| {
        let ports = match protocol {
            Protocol::All => None,
            Protocol::Icmp => Some((-1, -1)),
            Protocol::Tcp { from, to } | Protocol::Udp { from, to } => {
                Some((i32::from(from), i32::from(to)))
            }
        };
        x.leaf("ipProtocol", protocol.name())
            .maybe("fromPort", ports.map(|(from, _)| from))
            .maybe("toPort", ports.map(|(_, to)| to));
        let groups = peers.iter().filter_map(|peer| match peer {
            Peer::Group(group) => Some(group),
            Peer::Block(_) => None,
        });
        x.list("groups", groups, |x, group| {
            x.leaf("userId", world.account()).leaf("groupId", group);
        });
        let blocks = || {
            peers.iter().filter_map(|peer| match peer {
                Peer::Block(block) => Some(block),
                Peer::Group(_) => None,
            })
        };
        x.list(
            "ipRanges",
            blocks().filter(|n| n.addr().is_ipv4()),
            |x, n| {
                x.leaf("cidrIp", n);
            },
        );
        x.list(
            "ipv6Ranges",
            blocks().filter(|n| n.addr().is_ipv6()),
            |x, n| {
                x.leaf("cidrIpv6", n);
            },
        );
        x.texts::<String>("prefixListIds", []);
    });
}
