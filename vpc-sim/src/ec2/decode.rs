//! Converts parameters to the world's requests, with one function per action. Everything is decoded before anything is
//! done.

use std::{fmt::Display, str::FromStr, time::Duration};

use super::{encode, params::Params, xml::Xml};
use crate::{
    action::Action,
    error::ApiError,
    ids::EniId,
    world::{
        World,
        model::{InterfaceType, Tags},
        request::{
            AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
            DetachNetworkInterface, Filter, Pick, Query,
        },
    },
};

type Answer = Result<Xml, ApiError>;

pub fn run(world: &mut World, action: Action, params: Params, now: Duration) -> Answer {
    match action {
        Action::AssignIpv6Addresses => assign6(world, params, now),
        Action::AssignPrivateIpAddresses => assign4(world, params, now),
        Action::AttachNetworkInterface => attach(world, params, now),
        Action::CreateNetworkInterface => create(world, params, now),
        Action::CreateTags => create_tags(world, params, now),
        Action::DeleteNetworkInterface => delete(world, params, now),
        Action::DeleteTags => delete_tags(world, params, now),
        Action::DescribeInstanceTypes => Ok(encode::instance_types(
            &world.describe_instance_types(&query(params, "InstanceType")?, now)?,
        )),
        Action::DescribeInstances => {
            let page = world.describe_instances(&query(params, "InstanceId")?, now)?;
            Ok(encode::instances(world, &page))
        }
        Action::DescribeNetworkInterfaces => describe_interfaces(world, params, now),
        Action::DescribeRouteTables => {
            let page = world.describe_route_tables(&query(params, "RouteTableId")?, now)?;
            Ok(encode::topology::route_tables(world, &page))
        }
        Action::DescribeSecurityGroups => describe_groups(world, params, now),
        Action::DescribeSubnets => {
            let page = world.describe_subnets(&query(params, "SubnetId")?, now)?;
            Ok(encode::topology::subnets(world, &page))
        }
        Action::DescribeTags => Ok(encode::tag_rows(
            &world.describe_tags(&query(params, "")?, now)?,
        )),
        Action::DescribeVpcs => {
            let page = world.describe_vpcs(&query(params, "VpcId")?, now)?;
            Ok(encode::topology::vpcs(world, &page))
        }
        Action::DetachNetworkInterface => detach(world, params, now),
        Action::ModifyNetworkInterfaceAttribute => modify(world, params, now),
        Action::UnassignIpv6Addresses => unassign6(world, params, now),
        Action::UnassignPrivateIpAddresses => unassign4(world, params, now),
    }
}

/// The common parameters of all Describe actions. `ids`: the name of the id parameter, or empty if there is none.
fn query(mut p: Params, ids: &str) -> Result<Query, ApiError> {
    let q = query_part(&mut p, ids)?;
    p.finish_dry()?;
    Ok(q)
}

fn query_part(p: &mut Params, ids: &str) -> Result<Query, ApiError> {
    let mut filters = Vec::new();
    for mut f in p.structures("Filter") {
        filters.push(Filter {
            name: f.required("Name")?,
            values: f.list("Value")?,
        });
        f.finish()?;
    }
    let ids = if ids.is_empty() {
        Vec::new()
    } else {
        p.list(ids)?
    };
    Ok(Query {
        ids,
        filters,
        max_results: p.parsed("MaxResults")?,
        next_token: p.text("NextToken"),
    })
}

fn describe_interfaces(world: &mut World, mut p: Params, now: Duration) -> Answer {
    // Interfaces of AWS services are listed in both cases.
    p.flag("IncludeManagedResources")?;
    let page = world.describe_network_interfaces(&query(p, "NetworkInterfaceId")?, now)?;
    Ok(encode::interfaces(world, &page))
}

/// GroupName is another name for a filter.
fn describe_groups(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let names: Vec<String> = p.list("GroupName")?;
    let mut q = query(p, "GroupId")?;
    if !names.is_empty() {
        q.filters.push(Filter {
            name: "group-name".to_owned(),
            values: names,
        });
    }
    let page = world.describe_security_groups(&q, now)?;
    Ok(encode::topology::groups(world, &page))
}

/// The form in which addresses are requested. Two forms are an error.
fn pick<A: FromStr, P: FromStr>(forms: [(&str, Pick<A, P>); 4]) -> Result<Pick<A, P>, ApiError> {
    let mut given = forms
        .into_iter()
        .filter(|(_, pick)| !matches!(pick, Pick::Nothing));
    let Some((first, pick)) = given.next() else {
        return Ok(Pick::Nothing);
    };
    match given.next() {
        Some((second, _)) => Err(ApiError::Combination {
            first: first.to_owned(),
            second: second.to_owned(),
        }),
        None => Ok(pick),
    }
}

fn some<T, A, P>(list: Vec<T>, make: fn(Vec<T>) -> Pick<A, P>) -> Pick<A, P> {
    if list.is_empty() {
        Pick::Nothing
    } else {
        make(list)
    }
}

/// Exactly one of the forms.
fn needed<A, P>(pick: Pick<A, P>, name: &str) -> Result<Pick<A, P>, ApiError> {
    match pick {
        Pick::Nothing => Err(ApiError::MissingParameter {
            name: name.to_owned(),
        }),
        pick => Ok(pick),
    }
}

/// `name.N.field` of each member.
fn members<T: FromStr>(p: &mut Params, name: &str, field: &str) -> Result<Vec<T>, ApiError> {
    let mut out = Vec::new();
    for mut m in p.structures(name) {
        out.push(m.required_parsed(field)?);
        m.finish()?;
    }
    Ok(out)
}

fn create(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let mut req = CreateNetworkInterface::plain(p.required("SubnetId")?.into());
    req.groups = p
        .list::<String>("SecurityGroupId")?
        .into_iter()
        .map(Into::into)
        .collect();
    req.description = p.text("Description").unwrap_or_default();
    req.client_token = p.text("ClientToken");
    if let Some(name) = p.text("InterfaceType") {
        let why = "It is not a type of network interface.";
        let bad = ApiError::InvalidValue {
            name: "InterfaceType".into(),
            value: name.clone(),
            why,
        };
        req.interface_type = InterfaceType::parse(&name).ok_or(bad)?;
    }
    create_addresses(&mut p, &mut req)?;
    req.tags = specified_tags(&mut p)?;
    p.finish_dry()?;
    let token = req.client_token.clone();
    let eni = world.create_network_interface(req, now)?;
    Ok(encode::created(world, &eni, token.as_deref()))
}

fn create_addresses(p: &mut Params, req: &mut CreateNetworkInterface) -> Result<(), ApiError> {
    req.primary = p.parsed("PrivateIpAddress")?;
    let mut secondary = Vec::new();
    for mut m in p.structures("PrivateIpAddresses") {
        let address = m.required_parsed("PrivateIpAddress")?;
        let primary = m.flag("Primary")?;
        m.finish()?;
        if !primary {
            secondary.push(address);
        } else if req.primary.replace(address).is_some() {
            let (first, second) = (
                "PrivateIpAddress".to_owned(),
                "PrivateIpAddresses.Primary".to_owned(),
            );
            return Err(ApiError::Combination { first, second });
        }
    }
    req.ipv4 = pick([
        ("privateIpAddresses", some(secondary, Pick::These)),
        (
            "secondaryPrivateIpAddressCount",
            count(p, "SecondaryPrivateIpAddressCount", Pick::Count)?,
        ),
        (
            "ipv4Prefixes",
            some(members(p, "Ipv4Prefix", "Ipv4Prefix")?, Pick::Prefixes),
        ),
        (
            "ipv4PrefixCount",
            count(p, "Ipv4PrefixCount", Pick::PrefixCount)?,
        ),
    ])?;
    req.ipv6 = pick([
        (
            "ipv6Addresses",
            some(members(p, "Ipv6Addresses", "Ipv6Address")?, Pick::These),
        ),
        (
            "ipv6AddressCount",
            count(p, "Ipv6AddressCount", Pick::Count)?,
        ),
        (
            "ipv6Prefixes",
            some(members(p, "Ipv6Prefix", "Ipv6Prefix")?, Pick::Prefixes),
        ),
        (
            "ipv6PrefixCount",
            count(p, "Ipv6PrefixCount", Pick::PrefixCount)?,
        ),
    ])?;
    Ok(())
}

/// A count of zero is the same as no count.
fn count<A, P>(
    p: &mut Params,
    name: &str,
    make: fn(u32) -> Pick<A, P>,
) -> Result<Pick<A, P>, ApiError> {
    Ok(p.parsed(name)?
        .filter(|n| *n > 0)
        .map_or(Pick::Nothing, make))
}

fn specified_tags(p: &mut Params) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for mut spec in p.structures("TagSpecification") {
        let kind = spec.required("ResourceType")?;
        if kind != "network-interface" {
            return Err(ApiError::NotTaggable { kind });
        }
        tags.extend(plain_tags(&mut spec)?);
        spec.finish()?;
    }
    Ok(tags)
}

fn plain_tags(p: &mut Params) -> Result<Tags, ApiError> {
    let pairs = keyed(p)?
        .into_iter()
        .map(|(k, v)| (k, v.unwrap_or_default()));
    Ok(pairs.collect())
}

fn keyed(p: &mut Params) -> Result<Vec<(String, Option<String>)>, ApiError> {
    let mut tags = Vec::new();
    for mut t in p.structures("Tag") {
        tags.push((t.required("Key")?, t.text("Value")));
        t.finish()?;
    }
    Ok(tags)
}

fn create_tags(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let (resources, tags) = (p.list::<String>("ResourceId")?, plain_tags(&mut p)?);
    p.finish_dry()?;
    present(&resources, "resourceIdSet")?;
    world.create_tags(&resources, &tags, now)?;
    Ok(encode::done())
}

fn delete_tags(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let (resources, tags) = (p.list::<String>("ResourceId")?, keyed(&mut p)?);
    p.finish_dry()?;
    present(&resources, "resourceIdSet")?;
    world.delete_tags(&resources, &tags, now)?;
    Ok(encode::done())
}

fn present<T>(list: &[T], name: &str) -> Result<(), ApiError> {
    if list.is_empty() {
        Err(ApiError::MissingParameter {
            name: name.to_owned(),
        })
    } else {
        Ok(())
    }
}

fn attach(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let req = AttachNetworkInterface {
        eni: p.required("NetworkInterfaceId")?.into(),
        instance: p.required("InstanceId")?.into(),
        device: p.required_parsed("DeviceIndex")?,
        card: p.parsed("NetworkCardIndex")?.unwrap_or(0),
    };
    p.finish_dry()?;
    Ok(encode::attached(
        &world.attach_network_interface(&req, now)?,
    ))
}

fn detach(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let req = DetachNetworkInterface {
        attachment: p.required("AttachmentId")?.into(),
        force: p.flag("Force")?,
    };
    p.finish_dry()?;
    world.detach_network_interface(&req, now)?;
    Ok(encode::done())
}

fn delete(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let eni = EniId::from(p.required("NetworkInterfaceId")?);
    p.finish_dry()?;
    world.delete_network_interface(&eni, now)?;
    Ok(encode::done())
}

fn modify(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let eni = EniId::from(p.required("NetworkInterfaceId")?);
    let groups: Vec<String> = p.list("SecurityGroupId")?;
    let attachment = p.text("Attachment.AttachmentId");
    let delete: Option<bool> = p.parsed("Attachment.DeleteOnTermination")?;
    let check: Option<bool> = p.parsed("SourceDestCheck.Value")?;
    let description = p.text("Description.Value");
    p.finish_dry()?;
    let bond = match (attachment, delete) {
        (Some(id), Some(value)) => Some(Attribute::DeleteOnTermination {
            attachment: id.into(),
            value,
        }),
        (None, None) => None,
        (None, Some(_)) => {
            return Err(ApiError::MissingParameter {
                name: "attachment.attachmentId".into(),
            });
        }
        (Some(_), None) => {
            return Err(ApiError::MissingParameter {
                name: "attachment.deleteOnTermination".into(),
            });
        }
    };
    let groups = (!groups.is_empty())
        .then(|| Attribute::Groups(groups.into_iter().map(Into::into).collect()));
    let attributes = [
        ("attachment", bond),
        ("groupSet", groups),
        ("sourceDestCheck", check.map(Attribute::SourceDestCheck)),
        ("description", description.map(Attribute::Description)),
    ];
    world.modify_network_interface(&eni, only(attributes)?, now)?;
    Ok(encode::done())
}

fn only<T, N: Display>(choices: impl IntoIterator<Item = (N, Option<T>)>) -> Result<T, ApiError> {
    let mut given = choices.into_iter().filter_map(|(n, v)| Some((n, v?)));
    let missing = || ApiError::MissingParameter {
        name: "attribute".into(),
    };
    let (first, value) = given.next().ok_or_else(missing)?;
    match given.next() {
        Some((second, _)) => Err(ApiError::Combination {
            first: first.to_string(),
            second: second.to_string(),
        }),
        None => Ok(value),
    }
}

fn assign4(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let forms = [
        (
            "privateIpAddresses",
            some(p.list("PrivateIpAddress")?, Pick::These),
        ),
        (
            "secondaryPrivateIpAddressCount",
            count(&mut p, "SecondaryPrivateIpAddressCount", Pick::Count)?,
        ),
        ("ipv4Prefixes", some(p.list("Ipv4Prefix")?, Pick::Prefixes)),
        (
            "ipv4PrefixCount",
            count(&mut p, "Ipv4PrefixCount", Pick::PrefixCount)?,
        ),
    ];
    let req = AssignPrivateIpAddresses {
        eni: p.required("NetworkInterfaceId")?.into(),
        ipv4: needed(pick(forms)?, "secondaryPrivateIpAddressCount")?,
        allow_reassignment: p.flag("AllowReassignment")?,
    };
    p.finish()?;
    let given = world.assign_private_ip_addresses(&req, now)?;
    Ok(encode::assigned4(&req.eni, &given))
}

fn unassign4(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let eni = EniId::from(p.required("NetworkInterfaceId")?);
    let (addresses, prefixes) = (p.list("PrivateIpAddress")?, p.list("Ipv4Prefix")?);
    p.finish()?;
    if prefixes.is_empty() {
        present(&addresses, "privateIpAddresses")?;
    }
    world.unassign_private_ip_addresses(&eni, &addresses, &prefixes, now)?;
    Ok(encode::done())
}

fn assign6(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let forms = [
        ("ipv6Addresses", some(p.list("Ipv6Addresses")?, Pick::These)),
        (
            "ipv6AddressCount",
            count(&mut p, "Ipv6AddressCount", Pick::Count)?,
        ),
        ("ipv6Prefixes", some(p.list("Ipv6Prefix")?, Pick::Prefixes)),
        (
            "ipv6PrefixCount",
            count(&mut p, "Ipv6PrefixCount", Pick::PrefixCount)?,
        ),
    ];
    let eni = EniId::from(p.required("NetworkInterfaceId")?);
    let pick = needed(pick(forms)?, "ipv6AddressCount")?;
    p.finish()?;
    let given = world.assign_ipv6_addresses(&eni, &pick, now)?;
    Ok(encode::assigned6(&eni, &given))
}

fn unassign6(world: &mut World, mut p: Params, now: Duration) -> Answer {
    let eni = EniId::from(p.required("NetworkInterfaceId")?);
    let (addresses, prefixes) = (p.list("Ipv6Addresses")?, p.list("Ipv6Prefix")?);
    p.finish()?;
    if prefixes.is_empty() {
        present(&addresses, "ipv6Addresses")?;
    }
    world.unassign_ipv6_addresses(&eni, &addresses, &prefixes, now)?;
    Ok(encode::unassigned6(&eni, &addresses, &prefixes))
}
