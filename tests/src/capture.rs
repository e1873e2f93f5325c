//! Every packet that enters the VPC, seen on the wire, and whether the ENI that it came by may send it.
//!
//! Owns a packet socket in the router's namespace. The router drops what an ENI may not send without a word, as a VPC
//! does; here such packets are named. The kernel notes a packet before its answer can be on its way, so whoever has an
//! answer need not wait before asking.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::socket::{
        AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};
use vpc_sim::ids::EniId;

use crate::lab::Lab;

/// Bytes; a test sends a few hundred packets.
const BUFFER: usize = 32 << 20;

/// See the module.
#[derive(Debug)]
pub struct Capture {
    socket: OwnedFd,
}

/// An IPv4 packet that a node sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The ENI that it left by.
    pub eni: EniId,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
}

impl Capture {
    /// Notes every packet from now on.
    ///
    /// # Errors
    /// Without the right to have a packet socket.
    pub fn start(lab: &Lab) -> io::Result<Self> {
        let socket = lab.sim.router().run(|| {
            let (family, flags) = (AddressFamily::Packet, SockFlag::SOCK_NONBLOCK);
            socket(family, SockType::Raw, flags, SockProtocol::EthAll)
        })??;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(Self { socket })
    }

    /// What nodes have sent since this was last asked.
    ///
    /// # Errors
    /// What the socket says.
    pub fn packets(&self, lab: &Lab) -> io::Result<Vec<Packet>> {
        let ports = lab.sim.ports();
        let mut packets = Vec::new();
        let mut frame = [0; 64];
        loop {
            let (length, from) = match recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut frame) {
                Ok((length, Some(from))) => (length, from),
                Ok((_, None)) | Err(Errno::EINTR) => continue,
                Err(Errno::EAGAIN) => return Ok(packets),
                Err(errno) => return Err(errno.into()),
            };
            let port = u32::try_from(from.ifindex()).ok();
            let Some(eni) = port.and_then(|port| ports.get(&port)) else {
                continue;
            };
            let sent = from.pkttype() != PACKET_OUTGOING;
            let addresses = frame.get(..length).and_then(addresses);
            if let (true, Some((source, destination))) = (sent, addresses) {
                let eni = eni.clone();
                packets.push(Packet {
                    eni,
                    source,
                    destination,
                });
            }
        }
    }
}

/// The packets that their ENI may not send: it does not own their source.
#[must_use]
pub fn strays(lab: &Lab, packets: &[Packet]) -> Vec<Packet> {
    let world = lab.sim.world();
    let owns = |packet: &&Packet| {
        world
            .owner_of(packet.source)
            .is_some_and(|owner| owner.id == packet.eni)
    };
    packets.iter().filter(|p| !owns(p)).cloned().collect()
}

/// `PACKET_OUTGOING` of linux/if_packet.h: the router's own, on their way to a node.
const PACKET_OUTGOING: u8 = 4;

/// Source and destination of an Ethernet frame that carries IPv4.
fn addresses(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let at = |from: usize| -> Option<Ipv4Addr> {
        let four: [u8; 4] = frame.get(from..from + 4)?.try_into().ok()?;
        Some(four.into())
    };
    let is_ipv4 = frame.get(12..14)? == [8, 0];
    is_ipv4.then_some(())?;
    Some((at(26)?, at(30)?))
}
