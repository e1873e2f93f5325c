//! IPv4 neighbour entries (ARP). Builds requests and reads answers; decides nothing.

use std::net::Ipv4Addr;

use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Error, Mac, Request, Socket};

/// A neighbour entry with a known link-layer address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// The link.
    pub index: u32,
    /// The neighbour's address.
    pub address: Ipv4Addr,
    /// Its MAC address.
    pub mac: Mac,
    /// Set by an administrator: never ages, never asked for.
    pub permanent: bool,
}

impl Neighbour {
    /// Reads a `RTM_NEWNEIGH` or `RTM_DELNEIGH`; `None` for any other message or family, and while the MAC address
    /// is unknown.
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
                NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => address = Some(*ip),
                NeighbourAttribute::LinkLayerAddress(bytes) => {
                    mac = bytes.as_slice().try_into().ok()
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

/// Makes `address` resolve to `mac` on link `index` for ever, replacing what is there.
#[must_use]
pub fn set_permanent(index: u32, address: Ipv4Addr, mac: Mac) -> Request {
    let mut message = message(index, address);
    message.header.state = NeighbourState::Permanent;
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    Request::replace("neighbour set", RouteNetlinkMessage::NewNeighbour(message))
}

/// Removes the entry; `ENOENT` when there is none.
#[must_use]
pub fn del(index: u32, address: Ipv4Addr) -> Request {
    Request::ack(
        "neighbour del",
        RouteNetlinkMessage::DelNeighbour(message(index, address)),
        0,
    )
}

/// Asks for all IPv4 neighbours, or those of one link.
#[must_use]
pub fn dump(index: Option<u32>) -> Request {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    // Unlike addresses, neighbours are filtered by attribute; the strict check refuses an index in the header.
    message
        .attributes
        .extend(index.map(NeighbourAttribute::IfIndex));
    Request::dump("neighbour dump", RouteNetlinkMessage::GetNeighbour(message))
}

impl Socket {
    /// All IPv4 neighbours of the namespace whose MAC address is known, or those of one link.
    ///
    /// # Errors
    /// As [`Socket::dump`].
    pub fn neighbours(&mut self, index: Option<u32>) -> Result<Vec<Neighbour>, Error> {
        let messages = self.dump(&dump(index))?;
        let all = messages.iter().filter_map(Neighbour::from_message);
        Ok(all.filter(|n| index.is_none_or(|i| n.index == i)).collect())
    }
}

fn message(index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message
        .attributes
        .push(NeighbourAttribute::Destination(NeighbourAddress::Inet(
            address,
        )));
    message
}
