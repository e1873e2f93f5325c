//! The limits of an instance type, and the number of pod addresses that follows from them.
//!
//! Owns the table of published EC2 limits (`data/instance-limits.tsv`, compiled in) and the one formula that turns a row
//! into a pod limit. The daemon enforces the limit, and `ipamd max-pods` prints it. It must not guess: an unknown type is
//! an error that names similar types. It may use the operator's settings and nothing else of the planner.

pub mod max_pods;
mod table;

use std::borrow::Cow;

use crate::{Config, Family};

pub use max_pods::{MaxPods, Question, Unanswerable, max_pods, max_pods_by};
pub use table::{UnknownType, all, lookup, nearest, require};

/// Addresses in one /28 prefix. All sixteen can serve pods, because EC2 routes a prefix as a whole.
pub const PREFIX_SIZE: u32 = 16;

/// The hypervisor of an instance type. Prefixes need Nitro.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    Nitro,
    Xen,
    /// EC2 publishes none for bare metal and for two families older than Nitro.
    Unknown,
}

/// One row of the table (sources: EC2 `DescribeInstanceTypes`, EKS branch-interface limits).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceType {
    /// Borrowed from the table, or owned if EC2 described a type that is not in the table.
    pub name: Cow<'static, str>,
    /// ENIs on the default network card, including the primary one.
    pub max_enis: u16,
    /// IPv4 slots per ENI, including the one of the primary address. A /28 prefix uses one slot.
    pub ipv4_per_eni: u16,
    /// The network card whose device 0 is the primary ENI.
    pub default_card: u16,
    /// ENIs per network card, in card order.
    pub cards: Vec<u16>,
    pub hypervisor: Hypervisor,
    pub bare_metal: bool,
    /// Whether a trunk ENI can be attached; `None` if not published.
    pub trunking: Option<bool>,
    /// Branch ENIs per trunk; `None` if not published.
    pub branch_enis: Option<u16>,
    /// Default vCPUs; `None` if not published.
    pub vcpus: Option<u16>,
}

/// The settings that decide how an instance's slots are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `MAX_ENI`. 0 means unset, as upstream.
    pub max_eni: Option<u16>,
    /// `ENABLE_PREFIX_DELEGATION`. It has no effect if the instance does not support prefixes.
    pub prefixes: bool,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: pods are in other subnets than the node, so the primary ENI serves no
    /// pods.
    pub custom_networking: bool,
    /// `ENABLE_POD_ENI`: a trunk uses the slot of one ENI, if the instance supports it.
    pub trunk: bool,
}

impl Usage {
    /// How the daemon uses the slots. `primary_serves`: the primary ENI serves pods.
    #[must_use]
    pub fn of(config: &Config, primary_serves: bool) -> Self {
        Self {
            max_eni: config.max_eni,
            prefixes: config.prefix_delegation,
            custom_networking: !primary_serves,
            ..Self::default()
        }
    }
}

impl InstanceType {
    /// EC2 assigns prefixes to Nitro instances only. Bare metal uses the same cards.
    #[must_use]
    pub const fn supports_prefixes(&self) -> bool {
        matches!(self.hypervisor, Hypervisor::Nitro) || self.bare_metal
    }

    /// Slots on one ENI that can serve pods: all except the slot of its primary address.
    #[must_use]
    pub const fn slots_per_eni(&self) -> u16 {
        self.ipv4_per_eni.saturating_sub(1)
    }

    /// ENIs on the default card. The pool uses no other card.
    #[must_use]
    pub fn card_enis(&self) -> u16 {
        self.cards
            .get(usize::from(self.default_card))
            .map_or(self.max_enis, |card| self.max_enis.min(*card))
    }

    /// ENIs that the pool may hold: the default card's limit, capped by `MAX_ENI`. In IPv6 the primary ENI alone, whose one
    /// prefix is enough. Unmanaged interfaces are not subtracted here, because they come and go.
    #[must_use]
    pub fn eni_cap(&self, config: &Config) -> u16 {
        match config.family {
            Family::V4 => self.capped(config.max_eni),
            Family::V6 => 1,
        }
    }

    fn capped(&self, max_eni: Option<u16>) -> u16 {
        let hardware = self.card_enis();
        max_eni
            .filter(|max| *max > 0)
            .map_or(hardware, |max| hardware.min(max))
    }

    /// Whether the pool requests prefixes: the operator wants them and the instance supports them. On older hypervisors it
    /// uses single addresses, as upstream.
    #[must_use]
    pub const fn prefix_mode(&self, config: &Config) -> bool {
        config.prefix_delegation && self.supports_prefixes()
    }

    /// ENIs that serve pods under `usage`: the capped count minus those that custom networking and a trunk take.
    #[must_use]
    pub fn serving_enis(&self, usage: &Usage) -> u16 {
        let trunk = usage.trunk && self.trunking == Some(true);
        self.capped(usage.max_eni)
            .saturating_sub(u16::from(usage.custom_networking))
            .saturating_sub(u16::from(trunk))
    }
}

/// How many pods can have an address of their own, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodLimit {
    /// Pod addresses. Host-network pods need none and are not counted.
    pub addresses: u32,
    /// For humans: `m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses`.
    pub derivation: String,
}

/// The pod limit of an instance type under a configuration.
///
/// This counts addresses. The kubelet's number ([`max_pods`]) adds the pods that need none. `primary_serves`: the primary
/// ENI serves pods.
#[must_use]
pub fn pod_limit(instance: &InstanceType, config: &Config, primary_serves: bool) -> PodLimit {
    match config.family {
        Family::V4 => pod_addresses(instance, &Usage::of(config, primary_serves)),
        Family::V6 => ipv6_limit(instance),
    }
}

/// A /80 is never the limit, so the size of the node must be. Upstream has no figure for IPv6, and operators use the figure
/// of IPv4 prefixes. `MAX_ENI` has no effect, because the pool needs the primary ENI only.
fn ipv6_limit(instance: &InstanceType) -> PodLimit {
    let usage = Usage {
        prefixes: true,
        ..Usage::default()
    };
    let PodLimit {
        addresses,
        derivation,
    } = pod_addresses(instance, &usage);
    PodLimit {
        addresses,
        derivation: format!(
            "{derivation}, which also applies to IPv6, whose own addresses never run out"
        ),
    }
}

/// How many pod addresses an instance type can hold, and why.
#[must_use]
pub fn pod_addresses(instance: &InstanceType, usage: &Usage) -> PodLimit {
    let enis = instance.serving_enis(usage);
    let prefixes = usage.prefixes && instance.supports_prefixes();
    let each = if prefixes { PREFIX_SIZE } else { 1 };
    let addresses = u32::from(enis) * u32::from(instance.slots_per_eni()) * each;

    let plural = if enis == 1 { "" } else { "s" };
    let mut derivation = format!("{}: {enis} ENI{plural}", instance.name);
    let reasons = reservations(instance, usage);
    if !reasons.is_empty() {
        let could = instance.card_enis();
        let list = reasons.join(", ");
        derivation.push_str(&format!(" ({list}; the instance could hold {could})"));
    }
    let unit = if prefixes {
        format!("prefixes × {PREFIX_SIZE} addresses")
    } else {
        "addresses".to_owned()
    };
    let slots = instance.ipv4_per_eni;
    derivation.push_str(&format!(
        " × ({slots} − 1) {unit} = {addresses} pod addresses"
    ));
    PodLimit {
        addresses,
        derivation,
    }
}

/// Why some ENIs of the default card serve no pods.
fn reservations(instance: &InstanceType, usage: &Usage) -> Vec<&'static str> {
    let capped = instance.capped(usage.max_eni) < instance.card_enis();
    let trunk = usage.trunk && instance.trunking == Some(true);
    let reasons = [
        (capped, "MAX_ENI"),
        (usage.custom_networking, "the primary one serves no pods"),
        (trunk, "one is a trunk"),
    ];
    let holds = reasons.into_iter().filter(|(holds, _)| *holds);
    holds.map(|(_, reason)| reason).collect()
}

#[cfg(test)]
mod tests;
