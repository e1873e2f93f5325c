//! Describe filters: the supported names of each resource, and the wildcards of EC2's filter values.

use ipnet::IpNet;

use crate::{
    error::ApiError,
    world::{
        model::{Instance, NetworkInterface, RouteTable, SecurityGroup, Subnet, Tags, Vpc},
        request::Filter,
    },
};

/// An object that can be filtered.
pub(super) trait Filtered {
    /// The values of filter `name`; `None` if EC2 does not support this filter.
    fn values(&self, name: &str) -> Option<Vec<String>>;
}

/// Whether every filter matches.
pub(super) fn matches(item: &impl Filtered, filters: &[Filter]) -> Result<bool, ApiError> {
    for f in filters {
        let has = item.values(&f.name).ok_or_else(|| ApiError::BadFilter {
            name: f.name.clone(),
        })?;
        if !has.iter().any(|v| {
            f.values
                .iter()
                .any(|pattern| like(pattern.as_bytes(), v.as_bytes()))
        }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// `*` matches any sequence, `?` any single byte, a backslash escapes the next byte.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|i| like(rest, &text[i..])),
        ([b'\\', p, rest @ ..], [t, more @ ..]) => p == t && like(rest, more),
        ([b'?', rest @ ..], [_, more @ ..]) => like(rest, more),
        ([p, rest @ ..], [t, more @ ..]) => p == t && like(rest, more),
        (_, []) => false,
    }
}

fn tag_values(tags: &Tags, name: &str) -> Option<Vec<String>> {
    match name.strip_prefix("tag:") {
        Some(key) => Some(tags.get(key).cloned().into_iter().collect()),
        None if name == "tag-key" => Some(tags.keys().cloned().collect()),
        None => None,
    }
}

fn one(value: impl ToString) -> Option<Vec<String>> {
    Some(vec![value.to_string()])
}

fn many<T: ToString>(values: &[T]) -> Option<Vec<String>> {
    Some(values.iter().map(ToString::to_string).collect())
}

impl Filtered for NetworkInterface {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        if let Some(rest) = name.strip_prefix("attachment.") {
            return attachment_values(self, rest);
        }
        match name {
            "network-interface-id" => one(&self.id),
            "status" => one(self.status()),
            "subnet-id" => one(&self.subnet),
            "vpc-id" => one(&self.vpc),
            "availability-zone" => one(&self.zone),
            "interface-type" => one(self.interface_type.name()),
            "mac-address" => one(self.mac),
            "description" => one(&self.description),
            "group-id" => many(&self.groups),
            "private-ip-address" => Some(self.primary().iter().map(ToString::to_string).collect()),
            "addresses.private-ip-address" => many(&self.ipv4),
            "addresses.primary" => Some(
                self.ipv4
                    .iter()
                    .enumerate()
                    .map(|(i, _)| (i == 0).to_string())
                    .collect(),
            ),
            "ipv6-addresses.ipv6-address" => many(&self.ipv6),
            "requester-managed" | "operator.managed" => one(self.requester_managed),
            "source-dest-check" => one(self.source_dest_check),
            _ => tag_values(&self.tags, name),
        }
    }
}

fn attachment_values(eni: &NetworkInterface, name: &str) -> Option<Vec<String>> {
    let a = eni.attachment.as_ref();
    let value = match name {
        "instance-id" => a.map(|a| a.instance.to_string()),
        "attachment-id" => a.map(|a| a.id.to_string()),
        "status" => a.map(|a| a.state.name().to_owned()),
        "device-index" => a.map(|a| a.device.to_string()),
        "network-card-index" => a.map(|a| a.card.to_string()),
        "delete-on-termination" => a.map(|a| a.delete_on_termination.to_string()),
        _ => return None,
    };
    Some(value.into_iter().collect())
}

impl Filtered for Subnet {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "subnet-id" => one(&self.id),
            "vpc-id" => one(&self.vpc),
            "availability-zone" | "availabilityZone" => one(&self.zone),
            "cidr-block" | "cidr" | "cidrBlock" => one(self.cidr),
            "ipv6-cidr-block-association.ipv6-cidr-block" => {
                Some(self.ipv6.iter().map(ToString::to_string).collect())
            }
            "state" => one("available"),
            "default-for-az" | "defaultForAz" | "map-public-ip-on-launch" | "ipv6-native" => {
                one(false)
            }
            _ => tag_values(&self.tags, name),
        }
    }
}

impl Filtered for RouteTable {
    /// The association of a subnet without a table of its own is not listed, as in EC2.
    fn values(&self, name: &str) -> Option<Vec<String>> {
        let gateways = || self.routes.iter().map(|r| r.target.clone());
        let destinations = |of_family: fn(&IpNet) -> bool| {
            let all = self.routes.iter().map(|r| r.destination);
            Some(all.filter(of_family).map(|net| net.to_string()).collect())
        };
        let of_kind = |kind: &str| Some(gateways().filter(|id| id.starts_with(kind)).collect());
        match name {
            "route-table-id" => one(&self.id),
            "vpc-id" => one(&self.vpc),
            "association.route-table-id" => {
                let associated = self.main || !self.subnets.is_empty();
                Some(
                    associated
                        .then(|| self.id.to_string())
                        .into_iter()
                        .collect(),
                )
            }
            "association.subnet-id" => many(&self.subnets),
            "association.main" => {
                let subnets = self.subnets.iter().map(|_| false.to_string());
                let main = self.main.then(|| true.to_string());
                Some(main.into_iter().chain(subnets).collect())
            }
            "association.state" => one("associated"),
            "route.destination-cidr-block" => destinations(|net| net.addr().is_ipv4()),
            "route.destination-ipv6-cidr-block" => destinations(|net| net.addr().is_ipv6()),
            "route.gateway-id" => {
                let is_gateway = |id: &String| id == "local" || id.starts_with("igw-");
                Some(gateways().filter(is_gateway).collect())
            }
            "route.nat-gateway-id" => of_kind("nat-"),
            "route.transit-gateway-id" => of_kind("tgw-"),
            "route.state" => one("active"),
            _ => tag_values(&self.tags, name),
        }
    }
}

impl Filtered for Vpc {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "vpc-id" => one(&self.id),
            "cidr" => Some(self.cidrs.first().iter().map(ToString::to_string).collect()),
            "cidr-block-association.cidr-block" => many(&self.cidrs),
            "ipv6-cidr-block-association.ipv6-cidr-block" => many(&self.ipv6),
            "state" => one("available"),
            _ => tag_values(&self.tags, name),
        }
    }
}

impl Filtered for SecurityGroup {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "group-id" => one(&self.id),
            "group-name" => one(&self.name),
            "description" => one(&self.description),
            "vpc-id" => one(&self.vpc),
            _ => tag_values(&self.tags, name),
        }
    }
}

impl Filtered for Instance {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "instance-id" => one(&self.id),
            "instance-type" => one(&self.instance_type),
            "instance-state-name" => one(self.state.name()),
            "instance-state-code" => one(self.state.code()),
            "subnet-id" => one(&self.subnet),
            "vpc-id" => one(&self.vpc),
            "availability-zone" => one(&self.zone),
            "network-interface.network-interface-id" => one(&self.primary),
            "launch-time" => one(crate::time::text::iso8601(self.launched)),
            _ => tag_values(&self.tags, name),
        }
    }
}

/// One row of DescribeTags.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TagRow {
    pub resource: String,
    /// `network-interface`, `subnet`, …
    pub resource_type: &'static str,
    pub key: String,
    pub value: String,
}

impl Filtered for TagRow {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "resource-id" => one(&self.resource),
            "resource-type" => one(self.resource_type),
            "key" => one(&self.key),
            "value" => one(&self.value),
            _ => name.strip_prefix("tag:").map(|k| {
                (k == self.key)
                    .then(|| self.value.clone())
                    .into_iter()
                    .collect()
            }),
        }
    }
}

/// The attributes of an instance type that filters use.
impl Filtered for planner::limits::InstanceType {
    fn values(&self, name: &str) -> Option<Vec<String>> {
        match name {
            "instance-type" => one(&self.name),
            "bare-metal" => one(self.bare_metal),
            "hypervisor" => Some(hypervisor(self).map(str::to_owned).into_iter().collect()),
            "network-info.maximum-network-interfaces" => one(all_cards(self)),
            "network-info.ipv4-addresses-per-interface" => one(self.ipv4_per_eni),
            "network-info.maximum-network-cards" => one(self.cards.len()),
            _ => None,
        }
    }
}

/// The maximum number of interfaces of an instance on all its network cards; the table's `max_enis` is for one card.
pub(crate) fn all_cards(t: &planner::limits::InstanceType) -> u16 {
    t.cards.iter().sum()
}

/// EC2's name; none for bare metal.
pub(crate) const fn hypervisor(t: &planner::limits::InstanceType) -> Option<&'static str> {
    match t.hypervisor {
        planner::limits::Hypervisor::Nitro => Some("nitro"),
        planner::limits::Hypervisor::Xen => Some("xen"),
        planner::limits::Hypervisor::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards() {
        for (pattern, text, expect) in [
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "a", true),
            ("*c", "abc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            (r"a\*c", "abc", false),
            (r"a\*c", "a*c", true),
            ("", "", true),
        ] {
            assert_eq!(
                like(pattern.as_bytes(), text.as_bytes()),
                expect,
                "{pattern} ~ {text}"
            );
        }
    }
}
