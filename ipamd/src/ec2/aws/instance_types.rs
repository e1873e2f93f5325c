//! DescribeInstanceTypes for one type. Not part of [`super::Call`]: the pool does not use it.

use aws_sdk_ec2::types::{InstanceTypeHypervisor, InstanceTypeInfo, NetworkInfo};
use planner::{InstanceType, limits::Hypervisor};

use super::{Aws, CallError, failed, unreadable};

const ACTION: &str = "DescribeInstanceTypes";

impl Aws {
    /// EC2's description of an instance type. It does not contain trunks and branches.
    ///
    /// # Errors
    /// EC2's error (`InvalidInstanceType` for an unknown name), or an answer without limits.
    pub async fn instance_type(&self, name: &str) -> Result<InstanceType, CallError> {
        let out = self
            .client
            .describe_instance_types()
            .instance_types(name.into())
            .send()
            .await
            .map_err(|e| failed(ACTION, &e))?;
        let info = out
            .instance_types()
            .first()
            .ok_or_else(|| unreadable(ACTION, "no instanceType"))?;
        read(name, info).ok_or_else(|| unreadable(ACTION, "limits are missing"))
    }
}

fn read(name: &str, info: &InstanceTypeInfo) -> Option<InstanceType> {
    let network: &NetworkInfo = info.network_info()?;
    let count = |n: Option<i32>| n.and_then(|n| u16::try_from(n).ok());
    let cards: Vec<u16> = network
        .network_cards()
        .iter()
        .filter_map(|card| count(card.maximum_network_interfaces()))
        .collect();
    let default_card = count(network.default_network_card_index()).unwrap_or(0);
    let max_enis = match cards.get(usize::from(default_card)) {
        Some(on_card) => *on_card,
        None => count(network.maximum_network_interfaces())?,
    };
    Some(InstanceType {
        name: name.to_owned().into(),
        max_enis,
        ipv4_per_eni: count(network.ipv4_addresses_per_interface())?,
        default_card,
        cards: if cards.is_empty() {
            vec![max_enis]
        } else {
            cards
        },
        hypervisor: match info.hypervisor() {
            Some(InstanceTypeHypervisor::Nitro) => Hypervisor::Nitro,
            Some(InstanceTypeHypervisor::Xen) => Hypervisor::Xen,
            _ => Hypervisor::Unknown,
        },
        bare_metal: info.bare_metal().unwrap_or(false),
        trunking: None,
        branch_enis: None,
        vcpus: info.v_cpu_info().and_then(|v| count(v.default_v_cpus())),
    })
}
