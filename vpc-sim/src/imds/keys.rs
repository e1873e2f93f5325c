//! The tree under `/latest/`: the value of each key, and the listings of its directories.

use std::{fmt::Display, time::Duration};

use crate::{
    ids::InstanceId,
    time::text::iso8601,
    world::{
        ImdsInterface, World,
        model::{Instance, NetworkInterface},
    },
};

/// The keys of an instance under `meta-data/`, without those of its interfaces.
pub const KEYS: &[&str] = &[
    "placement/availability-zone",
    "placement/region",
    "instance-id",
    "instance-type",
    "local-ipv4",
    "ipv6",
    "mac",
    "iam/security-credentials/",
    "network/interfaces/macs/",
    "services/domain",
    "services/partition",
];

/// The keys of one interface, under `network/interfaces/macs/<mac>/`. The User Guide and the service disagree on
/// `network-card` and on `vpc-ipv4-cidr-block(s)`: both are served.
pub const INTERFACE_KEYS: &[&str] = &[
    "device-number",
    "interface-id",
    "ipv4-prefix",
    "ipv6-prefix",
    "ipv6s",
    "local-ipv4s",
    "mac",
    "network-card",
    "network-card-index",
    "owner-id",
    "security-group-ids",
    "subnet-id",
    "subnet-ipv4-cidr-block",
    "subnet-ipv6-cidr-blocks",
    "vpc-id",
    "vpc-ipv4-cidr-block",
    "vpc-ipv4-cidr-blocks",
    "vpc-ipv6-cidr-blocks",
];

/// The value at `path`, or its listing if it is a directory; `None` for a 404.
pub fn lookup(world: &mut World, id: &InstanceId, path: &str, now: Duration) -> Option<String> {
    let interfaces = world.imds_interfaces(id, now);
    let tree = Tree {
        world,
        instance: world.instance(id)?,
        interfaces,
        now,
    };
    let rest = path.strip_prefix("/latest")?;
    match rest.trim_matches('/') {
        "" => Some("dynamic\nmeta-data".to_owned()),
        "dynamic" => Some("instance-identity/".to_owned()),
        "dynamic/instance-identity" => Some("document".to_owned()),
        "dynamic/instance-identity/document" => Some(tree.document()),
        "meta-data" => Some(tree.list_all()),
        rest => tree.metadata(rest.strip_prefix("meta-data/")?),
    }
}

struct Tree<'a> {
    world: &'a World,
    instance: &'a Instance,
    interfaces: Vec<ImdsInterface>,
    now: Duration,
}

impl Tree<'_> {
    fn primary(&self) -> Option<&NetworkInterface> {
        self.world.interface(&self.instance.primary)
    }

    fn list_all(&self) -> String {
        let mut names: Vec<_> = KEYS
            .iter()
            .filter(|k| self.metadata(k.trim_end_matches('/')).is_some())
            .map(|k| {
                k.split_once('/')
                    .map_or_else(|| (*k).to_owned(), |(dir, _)| format!("{dir}/"))
            })
            .collect();
        names.sort();
        names.dedup();
        names.join("\n")
    }

    fn metadata(&self, key: &str) -> Option<String> {
        match key {
            "placement" => Some("availability-zone\nregion".to_owned()),
            "placement/availability-zone" => Some(self.instance.zone.clone()),
            "placement/region" => Some(self.world.region().to_owned()),
            "instance-id" => Some(self.instance.id.to_string()),
            "instance-type" => Some(self.instance.instance_type.clone()),
            "local-ipv4" => Some(self.primary()?.primary()?.to_string()),
            "ipv6" => Some(self.primary()?.ipv6.first()?.to_string()),
            "mac" => Some(self.primary()?.mac.to_string()),
            "services" => Some("domain\npartition".to_owned()),
            "services/domain" => Some(partition(self.world.region()).1.to_owned()),
            "services/partition" => Some(partition(self.world.region()).0.to_owned()),
            "iam" => Some("security-credentials/".to_owned()),
            "iam/security-credentials" => Some(self.instance.role.clone()),
            "network" => Some("interfaces/".to_owned()),
            "network/interfaces" => Some("macs/".to_owned()),
            "network/interfaces/macs" => {
                Some(lines(self.interfaces.iter().map(|i| format!("{}/", i.mac))))
            }
            key => match key.strip_prefix("network/interfaces/macs/") {
                Some(rest) => self.interface(rest),
                None => self.credentials(key.strip_prefix("iam/security-credentials/")?),
            },
        }
    }

    fn interface(&self, rest: &str) -> Option<String> {
        let (mac, key) = rest.split_once('/').unwrap_or((rest, ""));
        let entry = self.interfaces.iter().find(|i| i.mac.to_string() == mac)?;
        match (&entry.facts, key) {
            (Some(facts), "") => {
                let there = INTERFACE_KEYS
                    .iter()
                    .filter(|k| self.fact(facts, k).is_some());
                Some(lines(there))
            }
            // Listed but not populated: the directory exists and is empty.
            (None, "") => Some(String::new()),
            (Some(facts), key) => self.fact(facts, key),
            (None, _) => None,
        }
    }

    fn fact(&self, eni: &NetworkInterface, key: &str) -> Option<String> {
        let subnet = self.world.subnet(&eni.subnet)?;
        let vpc = self.world.vpc(&eni.vpc)?;
        let bond = eni.attachment.as_ref();
        match key {
            "device-number" => bond.map(|b| b.device.to_string()),
            "interface-id" => Some(eni.id.to_string()),
            "ipv4-prefix" => some_lines(&eni.ipv4_prefixes),
            "ipv6-prefix" => some_lines(&eni.ipv6_prefixes),
            "ipv6s" => some_lines(&eni.ipv6),
            "local-ipv4s" => some_lines(&eni.ipv4),
            "mac" => Some(eni.mac.to_string()),
            "network-card" | "network-card-index" => bond.map(|b| b.card.to_string()),
            "owner-id" => Some(self.world.account().to_owned()),
            "security-group-ids" => some_lines(&eni.groups),
            "subnet-id" => Some(eni.subnet.to_string()),
            "subnet-ipv4-cidr-block" => Some(subnet.cidr.to_string()),
            "subnet-ipv6-cidr-blocks" => some_lines(subnet.ipv6.as_slice()),
            "vpc-id" => Some(eni.vpc.to_string()),
            "vpc-ipv4-cidr-block" => vpc.cidrs.first().map(ToString::to_string),
            "vpc-ipv4-cidr-blocks" => some_lines(&vpc.cidrs),
            "vpc-ipv6-cidr-blocks" => some_lines(&vpc.ipv6),
            _ => None,
        }
    }

    /// Well-formed fake credentials: nothing here verifies a signature.
    fn credentials(&self, role: &str) -> Option<String> {
        if role != self.instance.role {
            return None;
        }
        let value = serde_json::json!({
            "Code": "Success",
            "LastUpdated": iso8601(self.now),
            "Type": "AWS-HMAC",
            "AccessKeyId": "ASIASIMULATED0000000",
            "SecretAccessKey": "simulated",
            "Token": "simulated",
            "Expiration": iso8601(self.now + Duration::from_hours(6)),
        });
        Some(format!("{value:#}"))
    }

    fn document(&self) -> String {
        let value = serde_json::json!({
            "accountId": self.world.account(),
            "architecture": "x86_64",
            "availabilityZone": self.instance.zone,
            "imageId": "ami-00000000000000000",
            "instanceId": self.instance.id.to_string(),
            "instanceType": self.instance.instance_type,
            "pendingTime": iso8601(self.instance.launched),
            "privateIp": self.primary().and_then(NetworkInterface::primary).map(|a| a.to_string()),
            "region": self.world.region(),
            "version": "2017-09-30",
        });
        format!("{value:#}")
    }
}

/// A region's partition, and the domain of its service endpoints.
fn partition(region: &str) -> (&'static str, &'static str) {
    match region.split('-').next() {
        Some("cn") => ("aws-cn", "amazonaws.com.cn"),
        Some("us") if region.starts_with("us-gov-") => ("aws-us-gov", "amazonaws.com"),
        _ => ("aws", "amazonaws.com"),
    }
}

fn lines<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items
        .into_iter()
        .map(|i| i.to_string())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Empty categories do not exist.
fn some_lines<T: Display>(items: &[T]) -> Option<String> {
    (!items.is_empty()).then(|| lines(items))
}
