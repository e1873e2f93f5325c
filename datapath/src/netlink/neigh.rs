//! Neighbour entries (ARP, ND). Builds requests and parses answers; makes no decisions.

use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};

use super::{Error, Family, Mac, Request, Socket, family};

/// A neighbour entry with a known link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub index: u32,
    /// The neighbour's address.
    pub address: IpAddr,
    /// Its MAC address.
    pub mac: Mac,
    /// Set by an administrator: never expires, never resolved.
    pub permanent: bool,
}

impl Neighbour {
    /// Parses a `RTM_NEWNEIGH` or `RTM_DELNEIGH`; `None` for any other message or family, and while the MAC address is
    /// unknown.
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewNeighbour(message)
        | RouteNetlinkMessage::DelNeighbour(message)) = message
        else {
            return None;
        };
        let mut address = None;
        let mut mac = None;
        for attribute in &message.attributes {
            match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => {
                    address = Some(IpAddr::V4(*ip))
                }
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => {
                    address = Some(IpAddr::V6(*ip))
                }
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok().map(Mac)
                }
                _ => {}
            }
        }
        let permanent = message.header.state == NeighbourState::Permanent;
        Some(Self {
            index: message.header.ifindex,
            address: address?,
            mac: mac?,
            permanent,
        })
    }
}

/// The address of a `RTM_NEWNEIGH` or `RTM_DELNEIGH`, whether or not its MAC address is known (it is not for a flushed
/// entry); `None` for any other message or family.
#[must_use]
pub fn address_of(message: &RouteNetlinkMessage) -> Option<IpAddr> {
    let (RouteNetlinkMessage::NewNeighbour(message) | RouteNetlinkMessage::DelNeighbour(message)) =
        message
    else {
        return None;
    };
    message.attributes.iter().find_map(|a| match a {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// Makes `address` permanently resolve to `mac` on link `index`, and replaces an existing entry.
#[must_use]
pub fn set_permanent(index: u32, address: impl Into<IpAddr>, mac: Mac) -> Request {
    let mut message = message(index, address.into());
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
    Request::replace("neighbour set", RouteNetlinkMessage::NewNeighbour(message))
}

/// Removes the entry; `ENOENT` if there is none.
#[must_use]
pub fn del(index: u32, address: impl Into<IpAddr>) -> Request {
    Request::ack(
        "neighbour del",
        RouteNetlinkMessage::DelNeighbour(message(index, address.into())),
        0,
    )
}

/// Lists all neighbours of a family, or those of one link.
#[must_use]
pub fn dump(family: Family, index: Option<u32>) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = family::code(family);
    // Unlike addresses, neighbours are filtered by attribute; the strict check refuses an index in the header.
    message
        .attributes
        .extend(index.map(NeighbourAttribute::IfIndex));
    Request::dump("neighbour dump", RouteNetlinkMessage::GetNeighbour(message))
}

impl Socket {
    /// All neighbours of a family in the namespace whose MAC address is known, or those of one link.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn neighbours(
        &mut self,
        family: Family,
        index: Option<u32>,
    ) -> Result<Vec<Neighbour>, Error> {
        let on = |n: &Neighbour| index.is_none_or(|i| n.index == i);
        self.dump(&dump(family, index), |message| {
            Neighbour::from_message(message).filter(on)
        })
    }
}

fn message(index: u32, address: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family::code(Family::of(address));
    message.header.ifindex = index;
    let destination = match address {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
}
