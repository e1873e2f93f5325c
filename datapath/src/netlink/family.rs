//! The kernel's numbers of the address families.

use netlink_packet_route::AddressFamily;
use nettypes::Family;

/// The kernel's number.
pub(super) const fn code(family: Family) -> AddressFamily {
    match family {
        Family::V4 => AddressFamily::Inet,
        Family::V6 => AddressFamily::Inet6,
    }
}

/// `None` for families that we do not handle, such as bridges and MPLS.
pub(super) const fn from_code(code: AddressFamily) -> Option<Family> {
    match code {
        AddressFamily::Inet => Some(Family::V4),
        AddressFamily::Inet6 => Some(Family::V6),
        _ => None,
    }
}
