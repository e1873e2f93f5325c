//! Addresses of links. Builds requests and parses answers; makes no decisions.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};

use super::link::Link;
use super::{Errno, Error, Family, Request, Socket, family};

/// An address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix.
    pub prefix_len: u8,
    /// `IFA_F_NOPREFIXROUTE`: the kernel creates no connected route for the prefix.
    pub no_prefix_route: bool,
    /// `IFA_F_NODAD`, IPv6: usable at once, without duplicate address detection.
    pub no_dad: bool,
    /// IPv6: usable for new connections, and meant to stay: neither under detection nor deprecated nor temporary.
    pub stable: bool,
}

const UNSTABLE: AddressFlags = AddressFlags::Tentative
    .union(AddressFlags::Dadfailed)
    .union(AddressFlags::Deprecated)
    .union(AddressFlags::Secondary);

impl Address {
    /// A host address (/32 or /128) without a connected route. For a /32, the kernel never creates one. For a /128, the
    /// request must say so, and must also disable duplicate address detection: it takes a second or more, during which
    /// the address is not usable.
    #[must_use]
    pub fn host(index: u32, address: impl Into<IpAddr>) -> Self {
        let address = address.into();
        let family = Family::of(address);
        Self {
            index,
            address,
            prefix_len: family.bits(),
            no_prefix_route: family == Family::V6,
            no_dad: family == Family::V6,
            stable: true,
        }
    }

    /// Parses a `RTM_NEWADDR` or `RTM_DELADDR`; `None` for any other message or family.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) =
            message
        else {
            return None;
        };
        let (mut local, mut prefix) = (None, None);
        let mut flags = AddressFlags::empty();
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(address) => local = Some(*address),
                AddressAttribute::Address(address) => prefix = Some(*address),
                AddressAttribute::Flags(found) => flags = *found,
                _ => {}
            }
        }
        let header = &message.header;
        // For IPv6, the local address is present only if it differs from the prefix's address.
        let address = local.or(prefix)?;
        Some(Self {
            index: header.index,
            address,
            prefix_len: header.prefix_len,
            no_prefix_route: flags.contains(AddressFlags::Noprefixroute),
            no_dad: flags.contains(AddressFlags::Nodad),
            stable: address.is_ipv4() || !flags.intersects(UNSTABLE),
        })
    }
}

/// Adds the address; `EEXIST` if the link already has it.
#[must_use]
pub fn add(address: &Address) -> Request {
    Request::create(
        "address add",
        RouteNetlinkMessage::NewAddress(message(address)),
    )
}

/// Adds the address, or changes the flags of an existing one. The prefix length is part of its identity.
#[must_use]
pub fn replace(address: &Address) -> Request {
    Request::replace(
        "address replace",
        RouteNetlinkMessage::NewAddress(message(address)),
    )
}

/// Removes the address; `EADDRNOTAVAIL` if the link does not have it.
#[must_use]
pub fn del(address: &Address) -> Request {
    Request::ack(
        "address del",
        RouteNetlinkMessage::DelAddress(message(address)),
        0,
    )
}

/// Lists all addresses of a family, or those of one link (kernels before 4.20 ignore the filter).
#[must_use]
pub fn dump(family: Family, index: Option<u32>) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = family::code(family);
    message.header.index = index.unwrap_or_default();
    Request::dump("address dump", RouteNetlinkMessage::GetAddress(message))
}

impl Socket {
    /// All addresses of a family in the namespace, or those of one link.
    ///
    /// # Errors
    /// As [`Socket::dump`]. A link that does not exist has no addresses.
    pub fn addresses(&mut self, family: Family, index: Option<u32>) -> Result<Vec<Address>, Error> {
        let on = |a: &Address| index.is_none_or(|i| a.index == i);
        let read = |message: &_| Address::from_message(message).filter(on);
        match self.dump(&dump(family, index), read) {
            Err(e) if e.is_gone() => Ok(Vec::new()),
            other => other,
        }
    }

    /// The addresses of a family on the other end of a veth in another namespace, as [`Socket::peer_of`]. `None` if there is no
    /// such end any more, or if the kernel is too old to tell.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn peer_addresses(
        &mut self,
        link: &Link,
        family: Family,
    ) -> Result<Option<Vec<IpAddr>>, Error> {
        let (Some(index), Some(netns)) = (link.peer, link.peer_netns) else {
            return Ok(None);
        };
        let mut message = AddressMessage::default();
        message.header.family = family::code(family);
        message.header.index = index;
        let netns = AddressAttribute::TargetNetNsId(netns);
        message.attributes.push(netns);
        let request = Request::dump("address dump", RouteNetlinkMessage::GetAddress(message));
        let on_it = |a: &Address| a.index == index;
        let read = |message: &_| Address::from_message(message).filter(on_it);
        match self.dump(&request, read) {
            Ok(found) => Ok(Some(found.iter().map(|found| found.address).collect())),
            // The link is gone, or the namespace and its id are.
            Err(e) if e.is_gone() || e.is(Errno::EINVAL) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn message(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family::code(Family::of(address.address));
    message.header.prefix_len = address.prefix_len;
    message.header.index = address.index;
    let ip = address.address;
    // Both: LOCAL is the address itself, ADDRESS is the prefix (the peer's address on a point-to-point link).
    message
        .attributes
        .extend([AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);
    let mut flags = AddressFlags::empty();
    flags.set(AddressFlags::Noprefixroute, address.no_prefix_route);
    flags.set(AddressFlags::Nodad, address.no_dad);
    if !flags.is_empty() {
        // The header has only eight flags, and the first of these is the tenth.
        message.attributes.push(AddressAttribute::Flags(flags));
    }
    message
}
