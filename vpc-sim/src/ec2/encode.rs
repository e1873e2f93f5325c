//! Converts the world's values to EC2's elements (botocore's `ec2/2016-11-15`), in EC2's order. [`topology`] has those
//! that an operator sets up.
//!
//! May use `xml`, `world`, `ids` and `time`. Must not know requests.

pub mod topology;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use planner::limits::InstanceType;

use super::xml::Xml;
use crate::{
    ids::{EniId, GroupId},
    time::text::iso8601,
    world::{
        World,
        describe::{TagRow, all_cards, hypervisor},
        model::{Attachment, Instance, NetworkInterface, Tags},
        request::{Assigned, Page},
    },
};

/// For actions without their own output.
pub fn done() -> Xml {
    let mut x = Xml::default();
    x.leaf("return", true);
    x
}

fn tags(x: &mut Xml, tags: &Tags) {
    x.list("tagSet", tags, |x, (k, v)| {
        x.leaf("key", k).leaf("value", v);
    });
}

fn group_set(x: &mut Xml, world: &World, groups: &[GroupId]) {
    x.list("groupSet", groups, |x, g| {
        x.leaf("groupId", g)
            .maybe("groupName", world.group(g).map(|g| &g.name));
    });
}

/// The name by address ("IP name"). The oldest region has its own domain (EC2 User Guide, "EC2 instance hostnames").
fn private_dns(region: &str, address: Ipv4Addr) -> String {
    let host = address.to_string().replace('.', "-");
    match region {
        "us-east-1" => format!("ip-{host}.ec2.internal"),
        _ => format!("ip-{host}.{region}.compute.internal"),
    }
}

fn addresses(x: &mut Xml, world: &World, eni: &NetworkInterface) {
    x.maybe("privateIpAddress", eni.primary());
    x.maybe(
        "privateDnsName",
        eni.primary().map(|a| private_dns(world.region(), a)),
    );
    x.list(
        "privateIpAddressesSet",
        eni.ipv4.iter().enumerate(),
        |x, (i, a)| {
            x.leaf("privateIpAddress", a)
                .leaf("privateDnsName", private_dns(world.region(), *a))
                .leaf("primary", i == 0);
        },
    );
    x.list("ipv4PrefixSet", &eni.ipv4_prefixes, |x, p| {
        x.leaf("ipv4Prefix", p);
    });
    x.list("ipv6AddressesSet", &eni.ipv6, |x, a| {
        x.leaf("ipv6Address", a).leaf("isPrimaryIpv6", false);
    });
    x.list("ipv6PrefixSet", &eni.ipv6_prefixes, |x, p| {
        x.leaf("ipv6Prefix", p);
    });
}

fn attachment(x: &mut Xml, a: &Attachment) {
    x.leaf("attachmentId", &a.id)
        .leaf("deviceIndex", a.device)
        .leaf("networkCardIndex", a.card)
        .leaf("status", a.state.name())
        .leaf("attachTime", iso8601(a.at))
        .leaf("deleteOnTermination", a.delete_on_termination);
}

/// `status`: EC2 returns `pending` in the answer to Create, and otherwise the state of the attachment.
fn interface(x: &mut Xml, world: &World, eni: &NetworkInterface, status: &str) {
    x.leaf("networkInterfaceId", &eni.id)
        .leaf("subnetId", &eni.subnet)
        .leaf("vpcId", &eni.vpc)
        .leaf("availabilityZone", &eni.zone)
        .leaf("description", &eni.description)
        .leaf("ownerId", world.account())
        .leaf("requesterManaged", eni.requester_managed)
        .leaf("status", status)
        .leaf("macAddress", eni.mac)
        .leaf("interfaceType", eni.interface_type.name())
        .leaf("sourceDestCheck", eni.source_dest_check);
    x.tree("operator", |x| {
        x.leaf("managed", eni.requester_managed);
    });
    addresses(x, world, eni);
    group_set(x, world, &eni.groups);
    tags(x, &eni.tags);
    if let Some(a) = &eni.attachment {
        x.tree("attachment", |x| {
            attachment(x, a);
            x.leaf("instanceId", &a.instance)
                .leaf("instanceOwnerId", world.account());
        });
    }
}

pub fn created(world: &World, eni: &NetworkInterface, token: Option<&str>) -> Xml {
    let mut x = Xml::default();
    let status = if eni.attachment.is_some() {
        eni.status()
    } else {
        "pending"
    };
    x.tree("networkInterface", |x| interface(x, world, eni, status))
        .maybe("clientToken", token);
    x
}

pub fn interfaces(world: &World, page: &Page<NetworkInterface>) -> Xml {
    let mut x = Xml::default();
    x.list("networkInterfaceSet", &page.items, |x, e| {
        interface(x, world, e, e.status())
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

pub fn attached(a: &Attachment) -> Xml {
    let mut x = Xml::default();
    x.leaf("attachmentId", &a.id)
        .leaf("networkCardIndex", a.card);
    x
}

pub fn assigned4(eni: &EniId, given: &Assigned<Ipv4Addr, Ipv4Net>) -> Xml {
    let mut x = Xml::default();
    x.leaf("networkInterfaceId", eni);
    x.list("assignedPrivateIpAddressesSet", &given.addresses, |x, a| {
        x.leaf("privateIpAddress", a);
    });
    x.list("assignedIpv4PrefixSet", &given.prefixes, |x, p| {
        x.leaf("ipv4Prefix", p);
    });
    x
}

pub fn assigned6(eni: &EniId, given: &Assigned<Ipv6Addr, Ipv6Net>) -> Xml {
    let mut x = Xml::default();
    x.leaf("networkInterfaceId", eni)
        .texts("assignedIpv6Addresses", &given.addresses)
        .texts("assignedIpv6PrefixSet", &given.prefixes);
    x
}

pub fn unassigned6(eni: &EniId, addresses: &[Ipv6Addr], prefixes: &[Ipv6Net]) -> Xml {
    let mut x = Xml::default();
    x.leaf("networkInterfaceId", eni)
        .texts("unassignedIpv6Addresses", addresses)
        .texts("unassignedIpv6PrefixSet", prefixes);
    x
}

pub fn tag_rows(page: &Page<TagRow>) -> Xml {
    let mut x = Xml::default();
    x.list("tagSet", &page.items, |x, r| {
        x.leaf("resourceId", &r.resource)
            .leaf("resourceType", r.resource_type)
            .leaf("key", &r.key)
            .leaf("value", &r.value);
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

/// One reservation per instance, as if each was launched separately.
pub fn instances(world: &World, page: &Page<Instance>) -> Xml {
    let mut x = Xml::default();
    x.list("reservationSet", &page.items, |x, i| {
        x.leaf("reservationId", i.id.0.replacen("i-", "r-", 1))
            .leaf("ownerId", world.account());
        x.texts::<String>("groupSet", []);
        x.list("instancesSet", [i], |x, i| instance(x, world, i));
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

fn instance(x: &mut Xml, world: &World, i: &Instance) {
    let primary = world.interface(&i.primary);
    x.leaf("instanceId", &i.id)
        .leaf("imageId", "ami-00000000000000000")
        .leaf("instanceType", &i.instance_type);
    x.tree("instanceState", |x| {
        x.leaf("code", i.state.code()).leaf("name", i.state.name());
    });
    x.leaf("launchTime", iso8601(i.launched));
    x.tree("placement", |x| {
        x.leaf("availabilityZone", &i.zone)
            .leaf("tenancy", "default");
    });
    x.leaf("subnetId", &i.subnet).leaf("vpcId", &i.vpc);
    x.maybe(
        "privateIpAddress",
        primary.and_then(NetworkInterface::primary),
    );
    x.maybe("ipv6Address", primary.and_then(|e| e.ipv6.first()));
    x.maybe("sourceDestCheck", primary.map(|e| e.source_dest_check));
    group_set(x, world, primary.map_or(&[], |e| &e.groups[..]));
    tags(x, &i.tags);
    x.tree("metadataOptions", |x| {
        x.leaf("state", "applied")
            .leaf("httpTokens", "required")
            .leaf("httpPutResponseHopLimit", world.hop_limit)
            .leaf("httpEndpoint", "enabled")
            .leaf("httpProtocolIpv6", "disabled")
            .leaf("instanceMetadataTags", "disabled");
    });
    let mine = world
        .interfaces()
        .filter(|e| e.attachment.as_ref().is_some_and(|a| a.instance == i.id));
    x.list("networkInterfaceSet", mine, |x, e| {
        instance_interface(x, world, e)
    });
}

/// DescribeInstances describes an interface slightly differently.
fn instance_interface(x: &mut Xml, world: &World, eni: &NetworkInterface) {
    x.leaf("networkInterfaceId", &eni.id)
        .leaf("subnetId", &eni.subnet)
        .leaf("vpcId", &eni.vpc)
        .leaf("description", &eni.description)
        .leaf("ownerId", world.account())
        .leaf("status", eni.status())
        .leaf("macAddress", eni.mac)
        .leaf("interfaceType", eni.interface_type.name())
        .leaf("sourceDestCheck", eni.source_dest_check);
    x.tree("operator", |x| {
        x.leaf("managed", eni.requester_managed);
    });
    addresses(x, world, eni);
    group_set(x, world, &eni.groups);
    if let Some(a) = &eni.attachment {
        x.tree("attachment", |x| attachment(x, a));
    }
}

pub fn instance_types(page: &Page<InstanceType>) -> Xml {
    let mut x = Xml::default();
    x.list("instanceTypeSet", &page.items, |x, t| {
        x.leaf("instanceType", &t.name)
            .leaf("bareMetal", t.bare_metal)
            .maybe("hypervisor", hypervisor(t));
        if let Some(n) = t.vcpus {
            x.tree("vCpuInfo", |x| {
                x.leaf("defaultVCpus", n);
            });
        }
        x.tree("networkInfo", |x| {
            x.leaf("networkPerformance", "not simulated")
                .leaf("maximumNetworkInterfaces", all_cards(t))
                .leaf("maximumNetworkCards", t.cards.len())
                .leaf("defaultNetworkCardIndex", t.default_card);
            x.list("networkCards", t.cards.iter().enumerate(), |x, (i, n)| {
                x.leaf("networkCardIndex", i)
                    .leaf("networkPerformance", "not simulated")
                    .leaf("maximumNetworkInterfaces", n);
            });
            x.leaf("ipv4AddressesPerInterface", t.ipv4_per_eni)
                .leaf("ipv6AddressesPerInterface", t.ipv4_per_eni)
                .leaf("ipv6Supported", true);
        });
    });
    x.maybe("nextToken", page.next_token.as_ref());
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_region_has_its_own_domain() {
        let address = Ipv4Addr::new(10, 0, 1, 2);
        assert_eq!(
            private_dns("us-east-1", address),
            "ip-10-0-1-2.ec2.internal"
        );
        assert_eq!(
            private_dns("us-west-2", address),
            "ip-10-0-1-2.us-west-2.compute.internal"
        );
    }
}
