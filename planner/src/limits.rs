//! What an instance type can hold, and how many pod addresses follow from it.
//!
//! Owns the table of published EC2 limits (`data/instance-limits.tsv`, compiled in) and the one formula that turns a
//! row into a pod limit: the daemon enforces it, `ipamd max-pods` prints it. It must not guess: an unknown type is an
//! error that names its neighbours, never a default.

pub mod expression;
pub mod max_pods;
mod table;

use std::{borrow::Cow, fmt::Write as _};

use crate::{Config, Family};

pub use max_pods::{MaxPods, Question, Unanswerable, max_pods};
pub use table::{UnknownType, all, lookup, nearest, require};

/// Addresses in one /28 prefix. All sixteen serve pods, the first and last included (EC2 routes a prefix as a whole).
pub const PREFIX_SIZE: u32 = 16;

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
    /// Borrowed from the table, or owned where EC2 told of a type that the table does not know.
    pub name: Cow<'static, str>,
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
    /// vCPUs by default; `None` where AWS publishes nothing.
    pub vcpus: Option<u16>,
}

/// What the operator makes of an instance's slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// `MAX_ENI`; 0 means unset, as upstream has it.
    pub max_eni: Option<u16>,
    /// `ENABLE_PREFIX_DELEGATION`; without effect where the instance cannot.
    pub prefixes: bool,
    /// `AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG`: pods live in other subnets than the node, so its primary ENI serves none.
    pub custom_networking: bool,
    /// `ENABLE_POD_ENI`: a trunk takes the slot of one ENI, if the instance can have one.
    pub trunk: bool,
}

impl From<&Config> for Usage {
    fn from(config: &Config) -> Self {
        Self {
            max_eni: config.max_eni,
            prefixes: config.prefix_delegation,
            ..Self::default()
        }
    }
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

    /// ENIs on the default card, which is where the pool's are.
    #[must_use]
    pub fn card_enis(&self) -> u16 {
        self.cards
            .get(usize::from(self.default_card))
            .map_or(self.max_enis, |card| self.max_enis.min(*card))
    }

    /// ENIs that the pool may hold: the default card's limit, capped by `MAX_ENI`; in IPv6 the primary alone, whose one
    /// prefix is enough. Interfaces that are not ours are not subtracted here: they come and go.
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

    /// Whether the pool asks for prefixes: wanted by the operator and possible here. Upstream, too, falls back to
    /// single addresses without a word on older hypervisors.
    #[must_use]
    pub const fn prefix_mode(&self, config: &Config) -> bool {
        config.prefix_delegation && self.supports_prefixes()
    }

    /// ENIs that serve pods under `usage`: the capped count without what custom networking and a trunk take away.
    #[must_use]
    pub fn serving_enis(&self, usage: &Usage) -> u16 {
        let trunk = usage.trunk && self.trunking == Some(true);
        self.capped(usage.max_eni)
            .saturating_sub(u16::from(usage.custom_networking))
            .saturating_sub(u16::from(trunk))
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
/// This counts addresses. kubelet's figure ([`max_pods`]) adds the pods that need none.
#[must_use]
pub fn pod_limit(instance: &InstanceType, config: &Config) -> PodLimit {
    match config.family {
        Family::V4 => pod_addresses(instance, &Usage::from(config)),
        Family::V6 => ipv6_limit(instance),
    }
}

/// A /80 is never the limit, so the node's size has to be: upstream has no figure of its own for IPv6, and operators use
/// that of IPv4 prefixes. `MAX_ENI` does not count, for the pool needs the primary ENI only.
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
        derivation: format!("{derivation}, which IPv6 takes over: its own never run out"),
    }
}

/// The addresses for pods that an instance type can hold, and why just so many.
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
        let _infallible = write!(derivation, " ({list}; the instance could hold {could})");
    }
    let unit = if prefixes {
        format!("prefixes × {PREFIX_SIZE} addresses")
    } else {
        "addresses".to_owned()
    };
    let slots = instance.ipv4_per_eni;
    let _infallible = write!(
        derivation,
        " × ({slots} − 1) {unit} = {addresses} pod addresses"
    );
    PodLimit {
        addresses,
        derivation,
    }
}

/// Who keeps pods from ENIs of the default card.
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
