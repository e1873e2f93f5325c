//! The daemon's calls, executed on the world.

use std::{net::IpAddr, time::Duration};

use ipamd::ec2::api::{Call, Reply, RouteTable, Subnet};
use ipnet::IpNet;
use planner::{Amount, AttachmentId, SubnetId};
use vpc_sim::{
    World,
    error::ApiError,
    ids,
    world::request::{
        AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
        DetachNetworkInterface, Filter, Pick, Query,
    },
};

use crate::{faults::Fault, state::State, surroundings::convert};

/// Executes `call`.
///
/// # Errors
/// EC2's error.
pub fn apply(state: &mut State, call: &Call, now: Duration) -> Result<Reply, ApiError> {
    if let Call::DescribeNetworkInterfaces { filters } = call {
        return list(state, filters, now);
    }
    let world = &mut state.world;
    match call {
        Call::CreateNetworkInterface { .. } => {
            let made = world.create_network_interface(creation(call), now)?;
            Ok(Reply::Interface(Box::new(convert::interface(&made))))
        }
        Call::AttachNetworkInterface {
            eni,
            instance,
            card,
            device,
        } => {
            let request = AttachNetworkInterface {
                eni: convert::eni(eni),
                instance: ids::InstanceId(instance.clone()),
                card: (*card).into(),
                device: (*device).into(),
            };
            let attachment = world.attach_network_interface(&request, now)?;
            Ok(Reply::Attached(AttachmentId(attachment.id.0)))
        }
        Call::AssignPrivateIpAddresses {
            eni,
            amount: Amount::Ipv6Prefixes(n),
        } => {
            let pick = Pick::PrefixCount((*n).into());
            let given = world.assign_ipv6_addresses(&convert::eni(eni), &pick, now)?;
            Ok(Reply::Assigned {
                addresses: Vec::new(),
                prefixes: given.prefixes.into_iter().map(IpNet::V6).collect(),
            })
        }
        Call::AssignPrivateIpAddresses { eni, amount } => {
            let request = AssignPrivateIpAddresses {
                eni: convert::eni(eni),
                ipv4: convert::pick(*amount),
                allow_reassignment: false,
            };
            let given = world.assign_private_ip_addresses(&request, now)?;
            Ok(Reply::Assigned {
                addresses: given.addresses.into_iter().map(IpAddr::V4).collect(),
                prefixes: given.prefixes.into_iter().map(IpNet::V4).collect(),
            })
        }
        Call::DescribeSubnets { filters } => {
            let filters = filters.iter().map(|(name, values)| Filter {
                name: name.clone(),
                values: values.clone(),
            });
            let query = Query {
                filters: filters.collect(),
                ..Query::default()
            };
            let page = world.describe_subnets(&query, now)?;
            let rows = page.items.into_iter().map(|(subnet, free)| Subnet {
                subnet: SubnetId(subnet.id.0),
                cidr: subnet.cidr,
                zone: Some(subnet.zone),
                free: u32::try_from(free).unwrap_or(u32::MAX),
                tags: subnet.tags,
            });
            Ok(Reply::Subnets(rows.collect()))
        }
        Call::DescribeRouteTables { vpc } => {
            let query = Query {
                filters: vec![Filter {
                    name: "vpc-id".to_owned(),
                    values: vec![vpc.clone()],
                }],
                ..Query::default()
            };
            let page = world.describe_route_tables(&query, now)?;
            let rows = page.items.into_iter().map(|table| RouteTable {
                id: table.id.0,
                main: table.main,
                subnets: table.subnets.into_iter().map(|id| SubnetId(id.0)).collect(),
            });
            Ok(Reply::RouteTables(rows.collect()))
        }
        other => change(world, other, now).map(|()| Reply::Done),
    }
}

/// The calls without a result.
fn change(world: &mut World, call: &Call, now: Duration) -> Result<(), ApiError> {
    match call {
        Call::DeleteOnTermination { eni, attachment } => {
            let attribute = Attribute::DeleteOnTermination {
                attachment: ids::AttachmentId(attachment.0.clone()),
                value: true,
            };
            world.modify_network_interface(&convert::eni(eni), attribute, now)
        }
        Call::SetGroups { eni, groups } => {
            let groups = groups.iter().map(|group| ids::GroupId(group.0.clone()));
            let attribute = Attribute::Groups(groups.collect());
            world.modify_network_interface(&convert::eni(eni), attribute, now)
        }
        Call::DetachNetworkInterface { attachment } => {
            let attachment = ids::AttachmentId(attachment.0.clone());
            world.detach_network_interface(
                &DetachNetworkInterface {
                    attachment,
                    force: false,
                },
                now,
            )
        }
        Call::DeleteNetworkInterface { eni } => {
            world.delete_network_interface(&convert::eni(eni), now)
        }
        Call::UnassignPrivateIpAddresses {
            eni,
            addresses,
            prefixes,
        } => world.unassign_private_ip_addresses(&convert::eni(eni), addresses, prefixes, now),
        Call::UnassignIpv6Addresses { eni, prefixes } => {
            world.unassign_ipv6_addresses(&convert::eni(eni), &[], prefixes, now)
        }
        _ => Ok(()),
    }
}

fn creation(call: &Call) -> CreateNetworkInterface {
    let Call::CreateNetworkInterface {
        token,
        subnet,
        groups,
        description,
        tags,
        amount,
    } = call
    else {
        unreachable!("only a creation is converted");
    };
    CreateNetworkInterface {
        groups: groups
            .iter()
            .map(|group| ids::GroupId(group.0.clone()))
            .collect(),
        description: description.clone(),
        ipv4: convert::pick(*amount),
        tags: tags.clone(),
        client_token: Some(token.clone()),
        ..CreateNetworkInterface::plain(ids::SubnetId(subnet.0.clone()))
    }
}

/// DescribeNetworkInterfaces, current or stale. The world is called in both cases, because throttling counts.
fn list(state: &mut State, filters: &[(String, String)], now: Duration) -> Result<Reply, ApiError> {
    let query = Query {
        filters: filters
            .iter()
            .map(|(name, value)| Filter {
                name: name.clone(),
                values: vec![value.clone()],
            })
            .collect(),
        ..Query::default()
    };
    let page = state.world.describe_network_interfaces(&query, now)?;
    if !state.strikes(Fault::Stale, now) {
        return Ok(Reply::Interfaces(
            page.items.iter().map(convert::interface).collect(),
        ));
    }
    let lag = state.scenario.lag;
    let mut seen = state.lists.view(now, lag, &mut state.views);
    seen.retain(|eni| filters.iter().all(|filter| convert::matches(eni, filter)));
    if seen != page.items {
        state.count(Fault::Stale, now);
    }
    Ok(Reply::Interfaces(
        seen.iter().map(convert::interface).collect(),
    ))
}

/// Others of the account make calls of this kind until it is throttled.
pub fn drain(world: &mut World, call: &Call, now: Duration) {
    let nothing = ids::EniId::from("eni-0");
    for _ in 0..128 {
        let outcome = match call {
            Call::CreateNetworkInterface { .. } => {
                let nowhere = CreateNetworkInterface::plain(ids::SubnetId::from("subnet-0"));
                world.create_network_interface(nowhere, now).err()
            }
            Call::AttachNetworkInterface { .. } => {
                let request = AttachNetworkInterface {
                    eni: nothing.clone(),
                    instance: ids::InstanceId::from("i-0"),
                    card: 0,
                    device: 1,
                };
                world.attach_network_interface(&request, now).err()
            }
            Call::AssignPrivateIpAddresses {
                amount: Amount::Ipv6Prefixes(_),
                ..
            } => {
                let one = Pick::PrefixCount(1);
                world.assign_ipv6_addresses(&nothing, &one, now).err()
            }
            Call::AssignPrivateIpAddresses { .. } => {
                let request = AssignPrivateIpAddresses {
                    eni: nothing.clone(),
                    ipv4: Pick::Count(1),
                    allow_reassignment: false,
                };
                world.assign_private_ip_addresses(&request, now).err()
            }
            Call::UnassignPrivateIpAddresses { .. } => world
                .unassign_private_ip_addresses(&nothing, &[], &[], now)
                .err(),
            Call::UnassignIpv6Addresses { .. } => {
                world.unassign_ipv6_addresses(&nothing, &[], &[], now).err()
            }
            Call::DeleteNetworkInterface { .. } => {
                world.delete_network_interface(&nothing, now).err()
            }
            _ => return,
        };
        if outcome == Some(ApiError::Throttled) {
            return;
        }
    }
}
