//! The AWS VPC CNI's JSON: its keys and shapes, so that scripts and support tools written for it keep working.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use datapath::{constants::eni_table, nft::SourcePorts};
use serde_json::{Map, Value, json};

use crate::{clock::Wall, config::Config, view};

/// What upstream writes for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `/v1/enis`: network cards, their ENIs, and what is in use on them by CIDR.
pub(super) fn enis(view: &view::View, now: Wall) -> Value {
    let mut cards = Map::new();
    for eni in &view.enis {
        let card = cards
            .entry(eni.card.to_string())
            .or_insert_with(|| json!({ "TotalIPs": 0, "AssignedIPs": 0, "ENIs": {} }));
        let assigned = eni.addresses.iter().filter(|a| a.state == "assigned");
        add(card, "TotalIPs", eni.addresses.len());
        add(card, "AssignedIPs", assigned.count());
        if !eni.id.is_empty() {
            card["ENIs"][&eni.id] = one(eni, now);
        }
    }
    Value::Object(cards)
}

fn add(card: &mut Value, key: &str, more: usize) {
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    let sum = card[key].as_u64().unwrap_or_default().saturating_add(more);
    card[key] = sum.into();
}

fn one(eni: &view::Eni, now: Wall) -> Value {
    let mut cidrs = Map::new();
    for address in &eni.addresses {
        let Some(IpAddr::V4(ip)) = address.address else {
            continue;
        };
        let (name, cidr) = if address.prefix.is_empty() {
            (format!("{ip}/32"), (ip, 32))
        } else {
            (address.prefix.clone(), of_prefix(&address.prefix, ip))
        };
        let block = cidrs.entry(name).or_insert_with(|| {
            json!({
                "Cidr": { "IP": cidr.0, "Mask": mask(cidr.1) },
                "IPAddresses": {},
                "IsPrefix": !address.prefix.is_empty(),
                "AddressFamily": "",
            })
        });
        if matches!(address.state.as_str(), "assigned" | "reserved" | "cooling") {
            block["IPAddresses"][ip.to_string()] = used(address, ip, now);
        }
    }
    let device = eni.device.unwrap_or_default();
    json!({
        "ID": eni.id,
        "IsPrimary": eni.primary,
        "IsTrunk": false,
        "IsEFA": false,
        "DeviceNumber": device,
        "AvailableIPv4Cidrs": cidrs,
        "IPv6Cidrs": {},
        "IsExcludedForPodIPs": false,
        "RouteTableID": if eni.primary { 254 } else { eni_table(eni.card, device) },
        "SubnetID": eni.subnet,
    })
}

fn of_prefix(prefix: &str, first: Ipv4Addr) -> (Ipv4Addr, u8) {
    let parsed = prefix.parse::<ipnet::Ipv4Net>();
    parsed.map_or((first, 28), |net| (net.network(), net.prefix_len()))
}

/// A mask as Go writes bytes: base64 of its four.
fn mask(bits: u8) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let all = u64::from(u32::MAX << (32 - u32::from(bits).min(32)).min(31)) << 16;
    let digit = |n: u32| {
        let six = usize::try_from(all >> (42 - 6 * n) & 0x3f).unwrap_or_default();
        char::from(DIGITS[six])
    };
    (0..6).map(digit).chain(['=', '=']).collect()
}

fn used(address: &view::Address, ip: Ipv4Addr, now: Wall) -> Value {
    let (namespace, name) = address.pod.split_once('/').unwrap_or_default();
    let since = address.age_ms.map_or_else(
        || NEVER.to_owned(),
        |age| now.before(Duration::from_millis(age)),
    );
    let cooling = address.state == "cooling";
    let (assigned, unassigned) = if cooling {
        (NEVER, since.as_str())
    } else {
        (since.as_str(), NEVER)
    };
    json!({
        "Address": ip,
        // Blank, as upstream's are since 1.23: with them anybody could ask for the pod's DEL.
        "IPAMKey": { "networkName": if cooling { "" } else { "hawser" }, "containerID": "", "ifName": "" },
        "IPAMMetadata": { "k8sPodNamespace": namespace, "k8sPodName": name },
        "AssignedTime": assigned,
        "UnassignedTime": unassigned,
    })
}

/// `/v1/networkutils-env-settings`.
pub(super) fn network_settings(config: &Config) -> Value {
    let egress = &config.egress;
    json!({
        "AWS_VPC_K8S_CNI_CONNMARK": egress.mark,
        "AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS": egress.excluded.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "AWS_VPC_K8S_CNI_EXTERNALSNAT": egress.external_snat,
        "AWS_EXTERNAL_SERVICE_CIDRS": [],
        "AWS_VPC_ENI_MTU": config.network.eni_mtu,
        "AWS_VPC_K8S_CNI_VETHPREFIX": config.network.veth_prefix,
        "AWS_VPC_CNI_NODE_PORT_SUPPORT": egress.node_ports,
        "AWS_VPC_K8S_CNI_RANDOMIZESNAT": match egress.ports {
            SourcePorts::Kept => 0,
            SourcePorts::Hashed => 1,
            SourcePorts::Random => 2,
        },
    })
}

/// `/v1/ipamd-env-settings`.
pub(super) fn pool_settings(config: &Config) -> Value {
    let pool = &config.pool;
    json!({
        "WARM_IP_TARGET": pool.warm_ip_target,
        "WARM_ENI_TARGET": pool.warm_eni_target,
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_base64_of_their_bytes() {
        assert_eq!(mask(32), "/////w==");
        assert_eq!(mask(28), "////8A==");
        assert_eq!(mask(16), "//8AAA==");
    }
}
