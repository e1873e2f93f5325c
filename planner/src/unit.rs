//! The unit of growth: single addresses, IPv4 prefixes or IPv6 prefixes.
//!
//! Owns what the three have in common and how they differ in size. The configuration and the hardware decide which one a
//! node uses, and that never changes while the daemon runs.

use ipnet::IpNet;

use crate::{Amount, Config, Family, InstanceType, limits::PREFIX_SIZE};

/// How many addresses an IPv6 prefix counts as. A /80 has 2^48 addresses, which would overflow the sums. This figure is
/// more than any node can use, including addresses in cooldown.
pub const IPV6_PREFIX_SIZE: u32 = 1 << 16;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    Address,
    /// An IPv4 /28.
    Prefix,
    /// An IPv6 /80. One is enough for a node.
    Ipv6Prefix,
}

impl Unit {
    pub(crate) const fn new(config: &Config, instance: &InstanceType) -> Self {
        match config.family {
            Family::V6 => Self::Ipv6Prefix,
            Family::V4 if instance.prefix_mode(config) => Self::Prefix,
            Family::V4 => Self::Address,
        }
    }

    /// The unit that EC2 was asked for when it gave this.
    pub(crate) fn of(net: &IpNet) -> Self {
        match net {
            _ if net.prefix_len() == net.max_prefix_len() => Self::Address,
            IpNet::V4(_) => Self::Prefix,
            IpNet::V6(_) => Self::Ipv6Prefix,
        }
    }

    /// Pod addresses in one unit.
    pub(crate) const fn size(self) -> u32 {
        match self {
            Self::Address => 1,
            Self::Prefix => PREFIX_SIZE,
            Self::Ipv6Prefix => IPV6_PREFIX_SIZE,
        }
    }

    pub(crate) const fn amount(self, n: u16) -> Amount {
        match self {
            Self::Address => Amount::Addresses(n),
            Self::Prefix => Amount::Prefixes(n),
            Self::Ipv6Prefix => Amount::Ipv6Prefixes(n),
        }
    }
}

impl Amount {
    /// Slots of an ENI that this takes. A prefix takes one slot, like a single address.
    #[must_use]
    pub const fn slots(self) -> u16 {
        match self {
            Self::Addresses(n) | Self::Prefixes(n) | Self::Ipv6Prefixes(n) => n,
        }
    }

    /// Pod addresses in it.
    #[must_use]
    pub fn addresses(self) -> u32 {
        let unit = match self {
            Self::Addresses(_) => Unit::Address,
            Self::Prefixes(_) => Unit::Prefix,
            Self::Ipv6Prefixes(_) => Unit::Ipv6Prefix,
        };
        u32::from(self.slots()) * unit.size()
    }
}
