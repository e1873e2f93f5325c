//! The AWS VPC CNI's JSON: its keys and structure, so that scripts and support tools for it keep working.

use std::net::IpAddr;
use std::time::Duration;

use datapath::{constants::eni_table, nft::SourcePorts};
use ipnet::IpNet;
use proto::names::NETWORK;
use serde_json::{Map, Value, json};

use crate::{
    config::{Config, PodSubnets},
    rpc::view,
    runtime::clock::Wall,
};

/// The AWS VPC CNI's text for an unset time.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// `/v1/enis`: network cards, their ENIs, and the used addresses by CIDR.
pub(super) fn enis(view: &view::View, now: Wall) -> Value {
    let mut cards = Map::new();
    for eni in &view.enis {
        let card = cards
            .entry(eni.card.to_string())
            .or_insert_with(|| json!({ "TotalIPs": 0, "AssignedIPs": 0, "ENIs": {} }));
        let assigned = eni.addresses.iter().filter(|a| a.state == "assigned");
        add(card, "TotalIPs", held(eni));
        add(card, "AssignedIPs", number(assigned.count()));
        if !eni.id.is_empty() {
            card["ENIs"][&eni.id] = one(eni, now);
        }
    }
    Value::Object(cards)
}

fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

fn add(card: &mut Value, key: &str, more: u64) {
    let sum = card[key].as_u64().unwrap_or_default().saturating_add(more);
    card[key] = sum.into();
}

/// Addresses assigned by EC2; an IPv6 prefix has more than the listed ones.
fn held(eni: &view::Eni) -> u64 {
    let single = |a: &&view::Address| a.prefix.is_empty();
    let singles = eni.addresses.iter().filter(single).count();
    let prefixes = eni.prefixes.iter().filter_map(|prefix| {
        let net = prefix.parse::<IpNet>().ok()?;
        1_u64.checked_shl(u32::from(net.max_prefix_len() - net.prefix_len()))
    });
    prefixes.fold(number(singles), u64::saturating_add)
}

fn one(eni: &view::Eni, now: Wall) -> Value {
    let (mut four, mut six) = (Map::new(), Map::new());
    for address in &eni.addresses {
        let Some(ip) = address.address else {
            continue;
        };
        let is_prefix = !address.prefix.is_empty();
        let own = IpNet::from(ip);
        let net = address.prefix.parse::<IpNet>().unwrap_or(own).trunc();
        let cidrs = if ip.is_ipv4() { &mut four } else { &mut six };
        let block = cidrs.entry(net.to_string()).or_insert_with(|| {
            json!({
                "Cidr": { "IP": net.network(), "Mask": mask(net.netmask()) },
                "IPAddresses": {},
                "IsPrefix": is_prefix,
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
        "AvailableIPv4Cidrs": four,
        "IPv6Cidrs": six,
        "IsExcludedForPodIPs": false,
        "RouteTableID": eni_table(eni.card, device),
        "SubnetID": eni.subnet,
    })
}

/// A mask as Go encodes bytes: base64 of its four or sixteen bytes.
fn mask(mask: IpAddr) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes = match mask {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let byte = |n: usize| u32::from(three.get(n).copied().unwrap_or_default());
        let all = byte(0) << 16 | byte(1) << 8 | byte(2);
        // This many bytes need one more digit; the rest is padding.
        for n in 0..4 {
            let six = usize::try_from(all >> (18 - 6 * n) & 0x3f).unwrap_or_default();
            let needed = n <= number(three.len());
            text.push(if needed { char::from(DIGITS[six]) } else { '=' });
        }
    }
    text
}

fn used(address: &view::Address, ip: IpAddr, now: Wall) -> Value {
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
        // Empty, like the AWS VPC CNI's since 1.23: with it, anyone could send a DEL for the pod.
        "IPAMKey": { "networkName": if cooling { "" } else { NETWORK }, "containerID": "", "ifName": "" },
        "IPAMMetadata": { "k8sPodNamespace": namespace, "k8sPodName": name },
        "AssignedTime": assigned,
        "UnassignedTime": unassigned,
    })
}

/// `/v1/networkutils-env-settings`.
pub(super) fn network_settings(config: &Config) -> Value {
    let egress = &config.egress;
    json!({
        "AWS_VPC_K8S_CNI_CONNMARK": egress.marks.primary(),
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
        "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG": matches!(config.pod_subnets, PodSubnets::Custom(_)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_base64_of_their_bytes() {
        let of = |net: &str| mask(net.parse::<IpNet>().unwrap().netmask());
        assert_eq!(of("10.0.0.1/32"), "/////w==");
        assert_eq!(of("10.0.0.0/28"), "////8A==");
        assert_eq!(of("10.0.0.0/16"), "//8AAA==");
        assert_eq!(of("2600::/80"), "/////////////wAAAAAAAA==");
        assert_eq!(of("::/0"), "AAAAAAAAAAAAAAAAAAAAAA==");
    }
}
