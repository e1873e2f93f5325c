//! ICMP echo from inside a namespace, with a chosen source address. Owns its socket and nothing else.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
            recvfrom, sendto, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

use crate::node::Pod;

/// The differences of ICMP between the families.
#[derive(Clone, Copy)]
struct Icmp {
    family: AddressFamily,
    protocol: SockProtocol,
    request: u8,
    reply: u8,
    /// A raw IPv4 socket returns the packet with its IP header.
    header: usize,
}

const ICMP: Icmp = Icmp {
    family: AddressFamily::Inet,
    protocol: SockProtocol::Icmp,
    request: 8,
    reply: 0,
    header: 20,
};
const ICMP_V6: Icmp = Icmp {
    family: AddressFamily::Inet6,
    protocol: SockProtocol::IcmpV6,
    request: 128,
    reply: 129,
    header: 0,
};

/// How long one request waits before the next is sent.
const PATIENCE: Duration = Duration::from_millis(250);

/// Pings from `netns` repeatedly, like the command, until a reply arrives or `limit` has passed. Returns the round trip
/// of the answered request.
///
/// A link of the fabric that has just come up may lose a packet, because the router's end waits for the kernel's link
/// watch; a real VPC does not.
///
/// # Errors
/// If the namespace or the socket is not usable. An unreachable destination is `None`, not an error.
pub fn ping(
    netns: &Netns,
    source: Option<IpAddr>,
    to: impl Into<IpAddr>,
    limit: Duration,
) -> io::Result<Option<Duration>> {
    let to = to.into();
    netns.run(|| {
        let begun = now();
        while begun.elapsed() < limit {
            if let Some(round_trip) = echo(source, to, limit.min(PATIENCE))? {
                return Ok(Some(round_trip));
            }
        }
        Ok(None)
    })?
}

/// Sends exactly one echo request: for paths that must not lose any.
///
/// # Errors
/// As [`ping`].
pub fn ping_once(netns: &Netns, to: IpAddr, limit: Duration) -> io::Result<Option<Duration>> {
    netns.run(|| echo(None, to, limit))?
}

#[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn echo(source: Option<IpAddr>, to: IpAddr, limit: Duration) -> io::Result<Option<Duration>> {
    let icmp = if to.is_ipv4() { ICMP } else { ICMP_V6 };
    let fd = socket(
        icmp.family,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        icmp.protocol,
    )?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    if let Some(source) = source {
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &SockaddrStorage::from(SocketAddr::new(source, 0)),
        )?;
    }
    // There may be several pings in one namespace: the identifier distinguishes their replies.
    let id = u16::try_from(std::process::id() & 0x7fff).unwrap_or_default() ^ thread_salt();
    let request = request(icmp, id);
    let begun = now();
    let target = SockaddrStorage::from(SocketAddr::new(to, 0));
    match sendto(
        std::os::fd::AsRawFd::as_raw_fd(&fd),
        &request,
        &target,
        MsgFlags::empty(),
    ) {
        Ok(_) => {}
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EPERM | Errno::EINVAL) => {
            // A request that cannot be sent fails immediately: the loop around this must not spin.
            std::thread::sleep(limit);
            return Ok(None);
        }
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = [0; 256];
    while begun.elapsed() < limit {
        match recvfrom::<SockaddrStorage>(std::os::fd::AsRawFd::as_raw_fd(&fd), &mut buffer) {
            Ok((n, from)) => {
                let packet = buffer.get(..n).unwrap_or_default();
                if from.is_some_and(|from| is_from(&from, to)) && is_reply(icmp, packet, id) {
                    return Ok(Some(begun.elapsed()));
                }
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(None)
}

fn thread_salt() -> u16 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    std::thread::current().id().hash(&mut hasher);
    u16::try_from(hasher.finish() & 0xffff).unwrap_or_default()
}

/// The kernel calculates the checksum of ICMPv6, which also covers the addresses.
fn request(icmp: Icmp, id: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = icmp.request;
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&1_u16.to_be_bytes());
    let sum = checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// RFC 1071.
pub(crate) fn checksum(packet: &[u8]) -> u16 {
    let words = packet
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

fn is_from(sender: &SockaddrStorage, address: IpAddr) -> bool {
    let four = sender.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
    let six = sender.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
    four.or(six) == Some(address)
}

fn is_reply(icmp: Icmp, packet: &[u8], id: u16) -> bool {
    let message = packet.get(icmp.header..).unwrap_or_default();
    message.len() >= 8 && message[0] == icmp.reply && message[4..6] == id.to_be_bytes()
}

/// A pair of pods whose echo was not answered, if any: each of `from` pings each of `to` from inside its namespace.
///
/// # Errors
/// If a namespace cannot be entered.
pub fn unanswered(from: &[Pod], to: &[Pod]) -> io::Result<Vec<(IpAddr, IpAddr)>> {
    let mut silent = Vec::new();
    for source in from {
        for target in to {
            let (a, b) = (source.address(), target.address());
            if a != b && ping(&source.netns, None, b, Duration::from_secs(2))?.is_none() {
                silent.push((a, b));
            }
        }
    }
    Ok(silent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_checksum_folds_to_zero() {
        assert_eq!(checksum(&request(ICMP, 0x1234)), 0);
    }

    #[test]
    fn only_our_reply_counts() {
        for icmp in [ICMP, ICMP_V6] {
            let mut packet = [0; 36];
            packet[icmp.header] = icmp.reply;
            packet[icmp.header + 4..icmp.header + 6].copy_from_slice(&7_u16.to_be_bytes());
            assert!(is_reply(icmp, &packet, 7));
            assert!(!is_reply(icmp, &packet, 8));
            assert!(!is_reply(icmp, &packet[..icmp.header + 6], 7));
        }
        let sender = SockaddrStorage::from(SocketAddr::from(([10, 0, 0, 1], 0)));
        assert!(is_from(&sender, [10, 0, 0, 1].into()));
        assert!(!is_from(&sender, [10, 0, 0, 2].into()));
    }
}
