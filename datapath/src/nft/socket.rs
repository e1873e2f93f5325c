//! The netfilter socket, and the name of our tables.

use nix::sys::socket::SockProtocol;

use crate::netlink::{Channel, Error};
use crate::netns::NetnsId;

/// The name of our table in each family. Tables of other programs are never changed.
pub(super) const TABLE: &str = "hawser";
/// The name of the table of host ports in each family.
pub(super) const PORTS_TABLE: &str = "hawser_ports";

/// A netfilter socket.
#[derive(Debug)]
pub struct Nft {
    pub(super) channel: Channel,
    pub(super) seq: u32,
}

impl Nft {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] if the kernel cannot create a socket, or has no netfilter netlink.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::open(SockProtocol::NetlinkNetFilter, 0)?,
            seq: 0,
        })
    }

    /// The socket's netlink port, which notifications about its changes have.
    pub(crate) const fn port(&self) -> u32 {
        self.channel.port
    }

    /// The namespace in which this socket acts. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// [`Error::Socket`] without that capability.
    pub fn netns_id(&self) -> Result<NetnsId, Error> {
        self.channel.netns_id()
    }
}
