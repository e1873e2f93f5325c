//! Conversions between the daemon's types and the world's. Only values.

use ipamd::ec2::api::{Attachment, Call, Interface, Reply};
use ipnet::IpNet;
use planner::{Amount, AttachmentId, EniId, Mac, SecurityGroupId, SubnetId};
use vpc_sim::{
    error::ApiError,
    ids,
    world::{
        model::NetworkInterface,
        request::{Pick, Pick4},
    },
};

#[must_use]
pub fn pick(amount: Amount) -> Pick4 {
    match amount {
        Amount::Addresses(n) => Pick::Count(n.into()),
        Amount::Prefixes(n) => Pick::PrefixCount(n.into()),
        Amount::Ipv6Prefixes(_) => unreachable!("an IPv6 node creates no ENI"),
    }
}

#[must_use]
pub fn eni(id: &EniId) -> ids::EniId {
    ids::EniId(id.0.clone())
}

/// An ENI as decoded by the client.
#[must_use]
pub fn interface(seen: &NetworkInterface) -> Interface {
    let narrow = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let four = seen.ipv4_prefixes.iter().copied().map(IpNet::V4);
    let six = seen.ipv6_prefixes.iter().copied().map(IpNet::V6);
    Interface {
        eni: EniId(seen.id.0.clone()),
        mac: Mac(seen.mac.0),
        subnet: SubnetId(seen.subnet.0.clone()),
        primary: seen.primary(),
        secondary: seen.ipv4.iter().skip(1).copied().collect(),
        prefixes: four.chain(six).collect(),
        vpc: Some(seen.vpc.0.clone()),
        zone: Some(seen.zone.clone()),
        status: seen.status().to_owned(),
        interface_type: seen.interface_type.name().to_owned(),
        managed_by_aws: seen.requester_managed,
        groups: seen
            .groups
            .iter()
            .map(|group| SecurityGroupId(group.0.clone()))
            .collect(),
        description: seen.description.clone(),
        requester: None,
        tags: seen.tags.clone(),
        attachment: seen.attachment.as_ref().map(|attachment| Attachment {
            id: AttachmentId(attachment.id.0.clone()),
            instance: Some(attachment.instance.0.clone()),
            account: None,
            card: narrow(attachment.card),
            device: narrow(attachment.device),
            status: attachment.state.name().to_owned(),
        }),
    }
}

/// Whether `seen` passes one of the filters that the daemon uses.
#[must_use]
pub fn matches(seen: &NetworkInterface, (name, value): &(String, String)) -> bool {
    match name.as_str() {
        "attachment.instance-id" => seen
            .attachment
            .as_ref()
            .is_some_and(|attachment| attachment.instance.0 == *value),
        "network-interface-id" => seen.id.0 == *value,
        "status" => seen.status() == value,
        tag => tag
            .strip_prefix("tag:")
            .is_some_and(|key| seen.tags.get(key) == Some(value)),
    }
}

/// A short text for a call.
#[must_use]
pub fn words(call: &Call) -> String {
    match call {
        Call::CreateNetworkInterface {
            token,
            subnet,
            amount,
            ..
        } => {
            format!(
                "Create {amount:?} in {subnet} token …{}",
                &token[token.len().saturating_sub(6)..]
            )
        }
        Call::AttachNetworkInterface { eni, device, .. } => format!("Attach {eni} at {device}"),
        Call::DeleteOnTermination { eni, .. } => format!("Modify {eni}"),
        Call::SetGroups { eni, groups } => format!("SetGroups {eni} {groups:?}"),
        Call::DetachNetworkInterface { attachment } => format!("Detach {attachment}"),
        Call::DeleteNetworkInterface { eni } => format!("Delete {eni}"),
        Call::AssignPrivateIpAddresses { eni, amount } => format!("Assign {amount:?} to {eni}"),
        Call::UnassignIpv6Addresses { eni, prefixes } => format!("Unassign {prefixes:?} of {eni}"),
        Call::UnassignPrivateIpAddresses {
            eni,
            addresses,
            prefixes,
        } => {
            format!("Unassign {addresses:?} {prefixes:?} from {eni}")
        }
        Call::DescribeNetworkInterfaces { filters } => format!("Describe {filters:?}"),
        Call::DescribeSubnets { filters } => format!("DescribeSubnets {filters:?}"),
        Call::DescribeRouteTables { vpc } => format!("DescribeRouteTables {vpc}"),
    }
}

/// A short text for an answer.
#[must_use]
pub fn outcome(result: &Result<Reply, ApiError>) -> String {
    let brief = |eni: &Interface| {
        let attachment = eni
            .attachment
            .as_ref()
            .map_or("loose", |attachment| attachment.status.as_str());
        format!(
            "{} {attachment} {:?} {:?}",
            eni.eni, eni.secondary, eni.prefixes
        )
    };
    match result {
        Ok(Reply::Interface(eni)) => brief(eni),
        Ok(Reply::Interfaces(enis)) => enis.iter().map(brief).collect::<Vec<_>>().join("; "),
        Ok(Reply::Assigned {
            addresses,
            prefixes,
        }) => format!("{addresses:?} {prefixes:?}"),
        Ok(Reply::Attached(attachment)) => attachment.to_string(),
        Ok(Reply::Subnets(_) | Reply::RouteTables(_) | Reply::Done) => "done".to_owned(),
        Err(error) => error.code().to_owned(),
    }
}
