//! IPv4 addresses of links. Builds requests and reads answers; decides nothing.

use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Request, Socket};

/// An IPv4 address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// The link.
    pub index: u32,
    /// The address.
    pub address: Ipv4Addr,
    /// Length of its prefix.
    pub prefix_len: u8,
    /// `IFA_F_NOPREFIXROUTE`: the kernel makes no connected route for the prefix.
    pub no_prefix_route: bool,
}

impl Address {
    /// A host address (/32), which never has a connected route.
    #[must_use]
    pub const fn host(index: u32, address: Ipv4Addr) -> Self {
        Self {
            index,
            address,
            prefix_len: 32,
            no_prefix_route: false,
        }
    }

    /// Reads a `RTM_NEWADDR` or `RTM_DELADDR`; `None` for any other message or family.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewAddress(message) | RouteNetlinkMessage::DelAddress(message)) =
            message
        else {
            return None;
        };
        let mut local = None;
        let mut no_prefix_route = false;
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Local(IpAddr::V4(address)) => local = Some(*address),
                AddressAttribute::Flags(flags) => {
                    no_prefix_route = flags.contains(AddressFlags::Noprefixroute)
                }
                _ => {}
            }
        }
        let header = &message.header;
        Some(Self {
            index: header.index,
            address: local?,
            prefix_len: header.prefix_len,
            no_prefix_route,
        })
    }
}

/// Adds the address; `EEXIST` when the link has it.
#[must_use]
pub fn add(address: &Address) -> Request {
    Request::create(
        "address add",
        RouteNetlinkMessage::NewAddress(message(address)),
    )
}

/// Adds the address, or changes the flags of the one that is there. The prefix length is part of its identity.
#[must_use]
pub fn replace(address: &Address) -> Request {
    Request::replace(
        "address replace",
        RouteNetlinkMessage::NewAddress(message(address)),
    )
}

/// Removes the address; `EADDRNOTAVAIL` when the link does not have it.
#[must_use]
pub fn del(address: &Address) -> Request {
    Request::ack(
        "address del",
        RouteNetlinkMessage::DelAddress(message(address)),
        0,
    )
}

/// Asks for all IPv4 addresses, or those of one link (kernels before 4.20 ignore the filter).
#[must_use]
pub fn dump(index: Option<u32>) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.index = index.unwrap_or_default();
    Request::dump("address dump", RouteNetlinkMessage::GetAddress(message))
}

impl Socket {
    /// All IPv4 addresses of the namespace, or those of one link.
    ///
    /// # Errors
    /// As [`Socket::dump`]; a link that is gone has no addresses.
    pub fn addresses(&mut self, index: Option<u32>) -> Result<Vec<Address>, Error> {
        let messages = match self.dump(&dump(index)) {
            Err(e) if e.is_gone() => return Ok(Vec::new()),
            other => other?,
        };
        let all = messages.iter().filter_map(Address::from_message);
        Ok(all.filter(|a| index.is_none_or(|i| a.index == i)).collect())
    }
}

fn message(address: &Address) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = address.prefix_len;
    message.header.index = address.index;
    let ip = IpAddr::V4(address.address);
    // Both: LOCAL is the address itself, ADDRESS the prefix (the peer's, on a point-to-point link).
    message
        .attributes
        .extend([AddressAttribute::Local(ip), AddressAttribute::Address(ip)]);
    if address.no_prefix_route {
        // The header has room for eight flags, and this is the tenth.
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Noprefixroute));
    }
    message
}
