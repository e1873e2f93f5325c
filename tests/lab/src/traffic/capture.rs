//! Captures every packet that enters the VPC, and checks whether its ENI may send it.
//!
//! Captures at the router's end of every ENI. The router silently drops packets that an ENI may not send, like a VPC;
//! here they are reported. The kernel captures a packet before its answer can be sent, so a caller with an answer need
//! not wait.

use std::{io, net::Ipv4Addr};

use vpc_sim::ids::EniId;

use crate::{
    Lab,
    traffic::ether::{self, Seen},
};

/// See the module.
#[derive(Debug)]
pub struct Capture(ether::Capture);

/// An IPv4 packet from a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The ENI through which it left.
    pub eni: EniId,
    pub source: Ipv4Addr,
    pub destination: Ipv4Addr,
}

impl Capture {
    /// Captures every packet from now on.
    ///
    /// # Errors
    /// Without the privilege to open a packet socket.
    pub fn start(lab: &Lab) -> io::Result<Self> {
        ether::Capture::start(lab.sim.router()).map(Self)
    }

    /// The packets from nodes since the last call.
    ///
    /// # Errors
    /// The socket's error.
    pub fn packets(&self, lab: &Lab) -> io::Result<Vec<Packet>> {
        let ports = lab.sim.ports();
        let world = lab.sim.world();
        let packet = |seen: &Seen| {
            let eni = ports.get(&u32::try_from(seen.link).ok()?)?;
            let mac = world.interface(eni)?.mac.0;
            // Otherwise it is the router's own, on its way to the node.
            let sent = seen.frame.get(6..12)? == mac;
            let (source, destination) = addresses(&seen.frame).filter(|_| sent)?;
            Some(Packet {
                eni: eni.clone(),
                source,
                destination,
            })
        };
        Ok(self.0.seen()?.iter().filter_map(packet).collect())
    }
}

/// The packets that their ENI may not send, because it does not own their source.
#[must_use]
pub fn strays(lab: &Lab, packets: &[Packet]) -> Vec<Packet> {
    let world = lab.sim.world();
    let owns = |packet: &&Packet| {
        let owner = world.owner_of(packet.source);
        owner.is_some_and(|owner| owner.id == packet.eni)
    };
    packets.iter().filter(|p| !owns(p)).cloned().collect()
}

/// Source and destination of an Ethernet frame with IPv4.
fn addresses(frame: &[u8]) -> Option<(Ipv4Addr, Ipv4Addr)> {
    let at = |from: usize| -> Option<Ipv4Addr> {
        let four: [u8; 4] = frame.get(from..from + 4)?.try_into().ok()?;
        Some(four.into())
    };
    let kind: [u8; 2] = frame.get(12..14)?.try_into().ok()?;
    if u16::from_be_bytes(kind) != ether::IPV4 {
        return None;
    }
    Some((at(26)?, at(30)?))
}
