//! The two families of addresses, where a request or an object belongs to one of them.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;

/// An address family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    #[default]
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bits of an address: the prefix length of a host.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    pub(super) const fn of_net(net: IpNet) -> Self {
        match net {
            IpNet::V4(_) => Self::V4,
            IpNet::V6(_) => Self::V6,
        }
    }

    /// As the kernel numbers it.
    pub(super) const fn code(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }

    /// `None` for families that are not ours to handle, such as bridges and MPLS.
    pub(super) const fn from_code(code: AddressFamily) -> Option<Self> {
        match code {
            AddressFamily::Inet => Some(Self::V4),
            AddressFamily::Inet6 => Some(Self::V6),
            _ => None,
        }
    }

    /// Everything: the destination of a default route.
    #[must_use]
    pub fn everything(self) -> IpNet {
        match self {
            Self::V4 => ipnet::Ipv4Net::default().into(),
            Self::V6 => ipnet::Ipv6Net::default().into(),
        }
    }
}
