//! Ethernet frames as a pod with CAP_NET_RAW can create them, and a capture of frames. Knows only the parts of
//! protocols that the tests forge.

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsRawFd, OwnedFd},
};

use datapath::netns::Netns;
use nettypes::Mac;
use nix::{
    errno::Errno,
    ifaddrs::getifaddrs,
    sys::socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrLike,
        recvfrom, sendto, setsockopt, socket, sockopt::RcvBufForce,
    },
};

use crate::traffic::ping::checksum;

pub const BROADCAST: Mac = Mac([0xff; 6]);
pub const IPV4: u16 = 0x0800;
pub const ARP: u16 = 0x0806;
pub const IPV6: u16 = 0x86dd;

/// ARP's two operations.
pub const REQUEST: u8 = 1;
pub const REPLY: u8 = 2;

fn packet_socket() -> nix::Result<OwnedFd> {
    socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        SockProtocol::EthAll,
    )
}

/// Sends `frames` unchanged over `link` of `netns`.
///
/// # Errors
/// If the namespace has no such link, or the kernel refuses.
pub fn send(netns: &Netns, link: &str, frames: &[Vec<u8>]) -> io::Result<()> {
    netns.run(|| {
        let fd = packet_socket()?;
        let of_link = |i: nix::ifaddrs::InterfaceAddress| {
            let address = i.address.filter(|_| i.interface_name == link)?;
            (address.family() == Some(AddressFamily::Packet))
                .then(|| address.as_link_addr().copied())
                .flatten()
        };
        let to: LinkAddr = getifaddrs()?
            .find_map(of_link)
            .ok_or_else(|| io::Error::other(format!("no link {link}")))?;
        for frame in frames {
            sendto(fd.as_raw_fd(), frame, &to, MsgFlags::empty())?;
        }
        Ok(())
    })?
}

/// The buffer for frames until they are read, in bytes: frames that do not fit are lost silently.
const BUFFER: usize = 32 << 20;

/// Captures every frame that enters or leaves a namespace, from its creation on.
#[derive(Debug)]
pub struct Capture(OwnedFd);

/// A frame, and the index of its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub link: usize,
    pub frame: Vec<u8>,
}

impl Capture {
    /// # Errors
    /// If the namespace cannot be entered or has no packet sockets.
    pub fn start(netns: &Netns) -> io::Result<Self> {
        let socket = netns.run(packet_socket)??;
        setsockopt(&socket, RcvBufForce, &BUFFER)?;
        Ok(Self(socket))
    }

    /// The frames so far.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn seen(&self) -> io::Result<Vec<Seen>> {
        let mut all = Vec::new();
        let mut buffer = [0; 2048];
        loop {
            match recvfrom::<LinkAddr>(self.0.as_raw_fd(), &mut buffer) {
                Ok((length, from)) => all.push(Seen {
                    link: from.map_or(0, |from| from.ifindex()),
                    frame: buffer.get(..length).unwrap_or_default().to_vec(),
                }),
                Err(Errno::EAGAIN) => return Ok(all),
                // A link was set down.
                Err(Errno::EINTR | Errno::ENETDOWN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[must_use]
pub fn frame(to: Mac, from: Mac, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [to.0, from.0].concat();
    frame.extend_from_slice(&kind.to_be_bytes());
    frame.extend_from_slice(payload);
    // The minimum size of an Ethernet frame.
    frame.resize(frame.len().max(60), 0);
    frame
}

/// "`ip` is at `mac`", as a request or a reply, sent by `mac` to `to`.
#[must_use]
pub fn arp(operation: u8, to: Mac, mac: Mac, ip: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut payload = vec![0, 1, 8, 0, 6, 4, 0, operation];
    payload.extend_from_slice(&mac.0);
    payload.extend_from_slice(&ip.octets());
    payload.extend_from_slice(&if operation == REPLY { to.0 } else { [0; 6] });
    payload.extend_from_slice(&target.octets());
    frame(to, mac, ARP, &payload)
}

/// A UDP datagram to port 7000 in an IPv4 packet.
#[must_use]
pub fn udp(from: Ipv4Addr, to: Ipv4Addr, data: &[u8]) -> Vec<u8> {
    const UDP: u8 = 17;
    let length = u16::try_from(8 + data.len()).unwrap_or(u16::MAX);
    let mut datagram = Vec::new();
    datagram.extend_from_slice(&7001_u16.to_be_bytes());
    datagram.extend_from_slice(&7000_u16.to_be_bytes());
    datagram.extend_from_slice(&length.to_be_bytes());
    // No checksum, which IPv4 permits.
    datagram.extend_from_slice(&[0, 0]);
    datagram.extend_from_slice(data);
    ipv4(UDP, from, to, &datagram)
}

/// An ICMP redirect: "for `destination` use `gateway`", about a packet that `to` allegedly sent.
#[must_use]
pub fn redirect(from: Ipv4Addr, to: Ipv4Addr, destination: Ipv4Addr, gateway: Ipv4Addr) -> Vec<u8> {
    const ICMP: u8 = 1;
    let about = udp(to, destination, b"");
    let mut message = vec![5, 1, 0, 0];
    message.extend_from_slice(&gateway.octets());
    message.extend_from_slice(&about);
    let sum = checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ipv4(ICMP, from, to, &message)
}

fn ipv4(protocol: u8, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, protocol, 0, 0]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

/// A router advertisement of a default route for half an hour, from a link-local address to all nodes.
#[must_use]
pub fn router_advertisement(mac: Mac) -> Vec<u8> {
    const ICMPV6: u8 = 58;
    let from = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad);
    let to = std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend_from_slice(&1800_u16.to_be_bytes());
    message.extend_from_slice(&[0; 8]);
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    // The checksum also covers the addresses, the length and the protocol.
    let mut covered = [from.octets(), to.octets()].concat();
    covered.extend_from_slice(&u32::from(length).to_be_bytes());
    covered.extend_from_slice(&[0, 0, 0, ICMPV6]);
    covered.extend_from_slice(&message);
    let sum = checksum(&covered);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[ICMPV6, 255]);
    packet.extend_from_slice(&from.octets());
    packet.extend_from_slice(&to.octets());
    packet.extend_from_slice(&message);
    frame(Mac([0x33, 0x33, 0, 0, 0, 1]), mac, IPV6, &packet)
}
