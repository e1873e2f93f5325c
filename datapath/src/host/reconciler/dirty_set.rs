//! The parts of the desired state that may differ from the kernel's.

use std::collections::BTreeSet;

use crate::netlink::Mac;

/// The parts of the state to compare with the kernel again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirtySet {
    /// Rules, settings of the whole node, and the links, addresses and route tables of ENIs.
    pub node: bool,
    /// The host sides of pods.
    pub pods: bool,
    /// Indices of pod links whose last notification differed from the desired state.
    pub links: BTreeSet<u32>,
    /// Our nftables.
    pub nftables: bool,
    /// The addresses that the host keeps from pods: its own, and those that rules of others decide for.
    pub local: bool,
    /// A pod's link is gone, and the pod with it.
    pub ended: bool,
    /// MAC addresses of hardware links that are not ours: possibly new ENIs.
    pub unknown_links: BTreeSet<Mac>,
}

impl DirtySet {
    /// Everything that a repair can look at.
    #[must_use]
    pub fn all() -> Self {
        Self {
            node: true,
            pods: true,
            nftables: true,
            local: true,
            ..Self::default()
        }
    }

    /// Whether a repair has anything to look at.
    #[must_use]
    pub fn needs_repair(&self) -> bool {
        self.node || self.of_pods() || self.nftables || self.local
    }

    /// Whether the host side of any pod is dirty.
    pub(super) fn of_pods(&self) -> bool {
        self.pods || !self.links.is_empty()
    }
}
