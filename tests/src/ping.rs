//! ICMP echo from inside a namespace, with a chosen source address. Owns its socket and nothing else.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use nix::{
    errno::Errno,
    sys::{
        socket::{
            AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind, recv,
            sendto, setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::TimeVal,
    },
};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IP_HEADER: usize = 20;

/// How long one request waits before the next is sent.
const PATIENCE: Duration = Duration::from_millis(250);

/// Pings from `netns`, again and again like the command, until a reply comes or `limit` is over: the round trip of the
/// request that was answered.
///
/// A link of the fabric that has just come up may lose a packet: the router's end of it waits for the kernel's link
/// watch, as no real VPC does.
///
/// # Errors
/// If the namespace or the socket cannot be used. An unreachable destination is `None`, not an error.
pub fn ping(
    netns: &Netns,
    source: Option<Ipv4Addr>,
    to: Ipv4Addr,
    limit: Duration,
) -> io::Result<Option<Duration>> {
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

/// Sends one echo request and no second: for paths that may not lose any.
///
/// # Errors
/// As [`ping`].
pub fn ping_once(netns: &Netns, to: Ipv4Addr, limit: Duration) -> io::Result<Option<Duration>> {
    netns.run(|| echo(None, to, limit))?
}

#[expect(clippy::disallowed_methods, reason = "the lab measures real time")]
fn now() -> Instant {
    Instant::now()
}

fn echo(source: Option<Ipv4Addr>, to: Ipv4Addr, limit: Duration) -> io::Result<Option<Duration>> {
    let fd = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Icmp,
    )?;
    setsockopt(&fd, ReceiveTimeout, &TimeVal::new(0, 50_000))?;
    if let Some(source) = source {
        bind(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &SockaddrIn::from(SocketAddrV4::new(source, 0)),
        )?;
    }
    // Several pings may be under way in one namespace: the identifier tells their replies apart.
    let id = u16::try_from(std::process::id() & 0x7fff).unwrap_or_default() ^ thread_salt();
    let request = request(id);
    let begun = now();
    let target = SockaddrIn::from(SocketAddrV4::new(to, 0));
    match sendto(
        std::os::fd::AsRawFd::as_raw_fd(&fd),
        &request,
        &target,
        MsgFlags::empty(),
    ) {
        Ok(_) => {}
        Err(Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EPERM | Errno::EINVAL) => {
            // What cannot be sent fails at once: the loop around this must not spin.
            std::thread::sleep(limit);
            return Ok(None);
        }
        Err(errno) => return Err(errno.into()),
    }
    let mut buffer = [0; 256];
    while begun.elapsed() < limit {
        match recv(
            std::os::fd::AsRawFd::as_raw_fd(&fd),
            &mut buffer,
            MsgFlags::empty(),
        ) {
            Ok(n) if is_reply(buffer.get(..n).unwrap_or_default(), to, id) => {
                return Ok(Some(begun.elapsed()));
            }
            Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => {}
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

fn request(id: u16) -> [u8; 16] {
    let mut packet = [0; 16];
    packet[0] = ECHO_REQUEST;
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

fn is_reply(packet: &[u8], from: Ipv4Addr, id: u16) -> bool {
    packet.len() >= IP_HEADER + 8
        && packet[12..16] == from.octets()
        && packet[IP_HEADER] == ECHO_REPLY
        && packet[IP_HEADER + 4..IP_HEADER + 6] == id.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requests_checksum_folds_to_zero() {
        assert_eq!(checksum(&request(0x1234)), 0);
    }

    #[test]
    fn only_our_reply_counts() {
        let mut packet = [0; 36];
        packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
        packet[IP_HEADER + 4..IP_HEADER + 6].copy_from_slice(&7_u16.to_be_bytes());
        assert!(is_reply(&packet, Ipv4Addr::new(10, 0, 0, 1), 7));
        assert!(!is_reply(&packet, Ipv4Addr::new(10, 0, 0, 1), 8));
        assert!(!is_reply(&packet, Ipv4Addr::new(10, 0, 0, 2), 7));
    }
}
