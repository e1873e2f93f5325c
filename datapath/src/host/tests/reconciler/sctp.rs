//! SCTP without a kernel that has it: raw sockets, and packets that connection tracking translates.

use std::net::{IpAddr, UdpSocket};
use std::os::fd::{FromRawFd, OwnedFd};

use nix::libc;

use super::*;

/// A raw socket.
pub fn raw(netns: &Netns, family: Family) -> UdpSocket {
    let open = || {
        let family = match family {
            Family::V4 => libc::AF_INET,
            Family::V6 => libc::AF_INET6,
        };
        #[expect(unsafe_code, reason = "nix does not know the protocol")]
        // SAFETY: the call takes no memory, and its result is checked.
        let raw = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 132) };
        assert!(raw >= 0, "{}", std::io::Error::last_os_error());
        #[expect(unsafe_code, reason = "the descriptor comes as a number")]
        // SAFETY: the kernel has just created it, and nothing else uses it.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        UdpSocket::from(socket)
    };
    let socket = netns.run(open).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// INIT (1) or INIT ACK (2) with its checksum, from a port to a port.
pub fn packet(kind: u8, [from, to]: [u16; 2], verification: u32) -> Vec<u8> {
    let mut packet = [from.to_be_bytes(), to.to_be_bytes()].concat();
    packet.extend(verification.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([kind, 0, 0, 20]);
    // Tag, window, streams, and first number.
    packet.extend([0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let sum = packet.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82f6_3b78 & (sum & 1).wrapping_neg())
        })
    });
    packet[8..12].copy_from_slice(&(!sum).to_le_bytes());
    packet
}

/// The ports of the next packet of this kind, and the sender.
pub fn hear(socket: &UdpSocket, kind: u8) -> ([u16; 2], IpAddr) {
    loop {
        let mut packet = [0; 128];
        let (_, from) = socket.recv_from(&mut packet).unwrap();
        // Only IPv4's raw sockets show the IP header.
        let header = match from.ip() {
            IpAddr::V4(_) => usize::from(packet[0] & 15) * 4,
            IpAddr::V6(_) => 0,
        };
        let sctp = &packet[header..];
        let port = |at: usize| u16::from_be_bytes([sctp[at], sctp[at + 1]]);
        if sctp[12] == kind {
            return ([port(0), port(2)], from.ip());
        }
    }
}
