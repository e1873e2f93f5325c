//! What an instance type can hold, and how many pod addresses follow from it.
//!
//! Owns the table of published EC2 limits (`data/instance-limits.tsv`, compiled in) and the one formula that turns a
//! row into a pod limit. It must not guess: an unknown type is an error that names its neighbours, never a default.

mod table;

use crate::Config;

pub use table::{UnknownType, all, lookup, nearest, require};

/// Addresses in one /28 prefix. All sixteen serve pods, the first and last included (EC2 routes a prefix as a whole).
pub const PREFIX_SIZE: u32 = 16;

/// kubelet's `maxPods` counts host-network pods too; upstream's calculator adds two, for itself and kube-proxy.
const HOST_NETWORK_PODS: u32 = 2;

/// The virtualisation below an instance type. Prefixes need Nitro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    Nitro,
    Xen,
    /// EC2 publishes none: bare metal, and two families that were withdrawn before Nitro.
    Unknown,
}

/// One row of the table (source: EC2 `DescribeInstanceTypes`, EKS branch-interface limits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    pub name: &'static str,
    /// ENIs on the default network card, the primary one included.
    pub max_enis: u16,
    /// IPv4 address slots per ENI, its own primary address included. A /28 prefix takes one slot.
    pub ipv4_per_eni: u16,
    /// The network card whose device 0 is the primary ENI.
    pub default_card: u16,
    /// ENIs per network card, in card order.
    pub cards: Vec<u16>,
    pub hypervisor: Hypervisor,
    pub bare_metal: bool,
    /// Whether a trunk ENI can be attached; `None` where AWS publishes nothing.
    pub trunking: Option<bool>,
    /// Branch ENIs per trunk; `None` where AWS publishes nothing.
    pub branch_enis: Option<u16>,
}

impl InstanceType {
    /// EC2 assigns prefixes to Nitro instances only; bare metal sits on the same cards.
    #[must_use]
    pub const fn supports_prefixes(&self) -> bool {
        matches!(self.hypervisor, Hypervisor::Nitro) || self.bare_metal
    }

    /// Slots on one ENI that can serve pods: all but the one of its primary address.
    #[must_use]
    pub const fn slots_per_eni(&self) -> u16 {
        self.ipv4_per_eni.saturating_sub(1)
    }

    /// ENIs that the pool may hold: the default card's limit, capped by `MAX_ENI` (a `MAX_ENI` of 0 means unset, as
    /// upstream has it). Interfaces that are not ours are not subtracted here: they come and go.
    #[must_use]
    pub fn eni_cap(&self, config: &Config) -> u16 {
        let hardware = self
            .cards
            .get(usize::from(self.default_card))
            .map_or(self.max_enis, |card| self.max_enis.min(*card));
        config
            .max_eni
            .filter(|max| *max > 0)
            .map_or(hardware, |max| hardware.min(max))
    }

    /// Whether the pool asks for prefixes: wanted by the operator and possible here. Upstream, too, falls back to
    /// single addresses without a word on older hypervisors.
    #[must_use]
    pub const fn prefix_mode(&self, config: &Config) -> bool {
        config.prefix_delegation && self.supports_prefixes()
    }
}

/// How many pods can have an address of their own, and why just so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLimit {
    /// Pod addresses; host-network pods need none and are not counted.
    pub addresses: u32,
    /// For people: `m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses`.
    pub derivation: String,
}

/// The pod limit of an instance type under a configuration.
///
/// This counts addresses. Upstream's `max-pods` figure is this plus two host-network pods ([`max_pods`]).
#[must_use]
pub fn pod_limit(instance: &InstanceType, config: &Config) -> PodLimit {
    let enis = u32::from(instance.eni_cap(config));
    let slots = u32::from(instance.slots_per_eni());
    let prefixes = instance.prefix_mode(config);
    let addresses = enis * slots * if prefixes { PREFIX_SIZE } else { 1 };

    let mut derivation = format!(
        "{}: {enis} ENI{}",
        instance.name,
        if enis == 1 { "" } else { "s" }
    );
    if enis < u32::from(instance.max_enis) {
        derivation.push_str(&format!(
            " (MAX_ENI; the instance could hold {})",
            instance.max_enis
        ));
    }
    if prefixes {
        derivation.push_str(&format!(
            " × ({} − 1) prefixes × {PREFIX_SIZE} addresses",
            instance.ipv4_per_eni
        ));
    } else {
        derivation.push_str(&format!(" × ({} − 1) addresses", instance.ipv4_per_eni));
    }
    derivation.push_str(&format!(" = {addresses} pod addresses"));
    PodLimit {
        addresses,
        derivation,
    }
}

/// The figure for kubelet's `--max-pods`: the pod limit and two host-network pods, as upstream's calculator has it.
#[must_use]
pub fn max_pods(instance: &InstanceType, config: &Config) -> u32 {
    pod_limit(instance, config).addresses + HOST_NETWORK_PODS
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(name: &str, config: &Config) -> PodLimit {
        pod_limit(require(name).unwrap(), config)
    }

    #[test]
    fn derivation_of_single_addresses() {
        let limit = limit("m5.large", &Config::default());
        assert_eq!(limit.addresses, 27);
        assert_eq!(
            limit.derivation,
            "m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses"
        );
    }

    #[test]
    fn max_eni_caps_and_is_named() {
        let limit = limit(
            "m5.large",
            &Config {
                max_eni: Some(1),
                ..Config::default()
            },
        );
        assert_eq!(limit.addresses, 9);
        assert_eq!(
            limit.derivation,
            "m5.large: 1 ENI (MAX_ENI; the instance could hold 3) × (10 − 1) addresses = 9 pod addresses"
        );
    }

    #[test]
    fn max_eni_beyond_the_hardware_or_zero_changes_nothing() {
        for max_eni in [Some(0), Some(99), None] {
            assert_eq!(
                limit(
                    "m5.large",
                    &Config {
                        max_eni,
                        ..Config::default()
                    }
                )
                .addresses,
                27
            );
        }
    }

    /// ec2-and-faults §3.3: c5.large holds nine prefixes per ENI, 144 pod addresses each.
    #[test]
    fn prefixes_multiply_by_sixteen() {
        let config = Config {
            prefix_delegation: true,
            max_eni: Some(1),
            ..Config::default()
        };
        assert_eq!(limit("c5.large", &config).addresses, 144);
    }

    #[test]
    fn prefix_mode_falls_back_where_the_hypervisor_cannot() {
        let config = Config {
            prefix_delegation: true,
            ..Config::default()
        };
        assert_eq!(limit("c4.large", &config).addresses, 27);
        assert!(
            require("m5.metal").unwrap().prefix_mode(&config),
            "bare metal publishes no hypervisor but can"
        );
    }

    /// The figures of upstream's published max-pods list.
    #[test]
    fn max_pods_agrees_with_upstream() {
        for (name, expect) in [
            ("t3.small", 11),
            ("m5.large", 29),
            ("m5.xlarge", 58),
            ("m5.24xlarge", 737),
        ] {
            assert_eq!(
                max_pods(require(name).unwrap(), &Config::default()),
                expect,
                "{name}"
            );
        }
    }

    #[test]
    fn many_cards_count_the_default_one_only() {
        assert_eq!(limit("p5.48xlarge", &Config::default()).addresses, 2 * 49);
    }
}
