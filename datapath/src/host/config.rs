//! What a node needs before its first pod, as data.

use super::eni::EniLink;
use crate::netlink::Family;
use crate::nft::{Egress, Ruleset};

/// What a node needs before its first pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostConfig {
    /// The primary ENI. Its index is 0.
    pub primary: EniLink,
    /// The packets that leave through the primary ENI, whichever ENI their pod is on, and the mark bits.
    pub egress: Egress,
    /// Whether pods must not reach the instance metadata service.
    pub block_metadata: bool,
    /// The address family of pods.
    pub pods: Family,
}

impl HostConfig {
    /// Whether pods reach destinations of the other family.
    #[must_use]
    pub const fn other_family(&self) -> bool {
        self.egress.other_family.is_some()
    }

    /// Whether pods use IPv6 addresses, of their own or for IPv6 destinations.
    #[must_use]
    pub fn uses_ipv6(&self) -> bool {
        self.pods == Family::V6 || self.other_family()
    }

    /// The desired contents of nftables. `primary`: link index of the primary ENI. `loose`: the kernel's own source check is
    /// a loose one. `ipv6`: the kernel has IPv6.
    pub(super) fn ruleset(&self, primary: u32, loose: bool, ipv6: bool) -> Ruleset {
        Ruleset {
            check_source: loose,
            primary,
            egress: self.egress.clone(),
            block_metadata: self.block_metadata,
            pods: self.pods,
            has_ipv6: ipv6,
        }
    }
}
