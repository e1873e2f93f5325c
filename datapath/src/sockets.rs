//! Programs of the node that listen on host ports: a translated port would be taken away from them silently.
//!
//! Asks the kernel's socket diagnostics for the listeners of one port, and reads no list of processes. Opens its own socket,
//! in the calling thread's namespace. Knows no pods.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nettypes::{HostPort, Transport};
use nix::libc::{AF_INET, AF_INET6};
use nix::sys::socket::SockProtocol;

use crate::netlink::{Channel, Errno, Error, Family, Frame, verdict};

const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Bits of socket states: a listening TCP socket, and a UDP socket that is bound and not connected (net/tcp_states.h).
const CLOSE: u32 = 1 << 7;
const LISTEN: u32 = 1 << 10;

/// The first of `ports` that a program uses, and where it listens. A port without an address is used by a listener on any
/// address of the node, and one with an address also by a listener on all addresses.
///
/// # Errors
/// If the kernel cannot be queried. A kernel that has no diagnostics for a protocol has no listener of it.
pub fn in_use(ports: &[HostPort], family: Family) -> Result<Option<(HostPort, SocketAddr)>, Error> {
    let mut channel = Channel::open(SockProtocol::NetlinkSockDiag, 0)?;
    let mut seq = 0;
    for port in ports {
        // A socket of IPv6 may accept IPv4 too.
        let families: &[Family] = match family {
            Family::V4 => &[Family::V4, Family::V6],
            Family::V6 => &[Family::V6],
        };
        for of in families {
            seq += 1;
            let found = listeners(&mut channel, seq, *of, port)?;
            let conflict = found
                .into_iter()
                .find(|listener| listener.takes(port, family));
            if let Some(Listener { address, .. }) = conflict {
                return Ok(Some((*port, SocketAddr::new(address, port.port))));
            }
        }
    }
    Ok(None)
}

/// A socket that is bound to a port.
#[derive(Debug, Clone, Copy)]
struct Listener {
    address: IpAddr,
    /// Accepts no IPv4, although it could.
    only_ipv6: bool,
}

impl Listener {
    /// Whether it gets packets of this family to the port.
    fn takes(&self, port: &HostPort, family: Family) -> bool {
        match (self.address, family) {
            (IpAddr::V6(six), Family::V4) => {
                six.is_unspecified() && !self.only_ipv6
                    || six
                        .to_ipv4_mapped()
                        .is_some_and(|four| Self::at(four.into(), port))
            }
            (address, _) => Self::at(address, port),
        }
    }

    fn at(address: IpAddr, port: &HostPort) -> bool {
        address.is_unspecified() || port.address.is_none_or(|wanted| wanted == address)
    }
}

fn listeners(
    channel: &mut Channel,
    seq: u32,
    family: Family,
    port: &HostPort,
) -> Result<Vec<Listener>, Error> {
    let op = "list sockets";
    channel.enlarge();
    channel.send(op, &request(seq, family, port))?;
    let mut found = Vec::new();
    let own = channel.port;
    loop {
        for frame in channel.receive(op)? {
            let frame = frame?;
            if frame.seq != seq || frame.port != own {
                continue;
            }
            match frame.kind {
                NLMSG_ERROR | NLMSG_DONE => {
                    return match verdict(op, &frame) {
                        // No such protocol, or no diagnostics for it.
                        Err(e) if e.is(Errno::ENOENT) || e.is(Errno::EOPNOTSUPP) => Ok(Vec::new()),
                        other => other.map(|()| found),
                    };
                }
                _ => found.extend(listener(&frame, port.port)),
            }
        }
    }
}

/// `struct nlmsghdr`, then `struct inet_diag_req_v2`. The kernel compares the port itself.
fn request(seq: u32, family: Family, port: &HostPort) -> Vec<u8> {
    const LENGTH: u32 = 16 + 56;
    let family = match family {
        Family::V4 => AF_INET,
        Family::V6 => AF_INET6,
    };
    let states = match port.transport {
        Transport::Tcp => LISTEN,
        Transport::Udp => CLOSE,
        // An SCTP socket that listens has the number of TCP's.
        Transport::Sctp => LISTEN,
    };
    let mut out = Vec::new();
    out.extend(LENGTH.to_ne_bytes());
    out.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    out.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    out.extend([0; 4]);
    let family = u8::try_from(family).expect("families are small numbers");
    // Whether a socket accepts IPv6 only is in each answer, without being asked for.
    out.extend([family, port.transport.number(), 0, 0]);
    out.extend(states.to_ne_bytes());
    // Source port; then no destination, no addresses, no link, no cookie.
    out.extend(port.port.to_be_bytes());
    out.resize(LENGTH as usize, 0);
    out
}

/// `struct inet_diag_msg`, then attributes.
fn listener(frame: &Frame<'_>, port: u16) -> Option<Listener> {
    const ATTRIBUTES: usize = 72;
    const SKV6ONLY: u16 = 11;
    let message = frame.payload();
    let number = message.get(4..6)?.try_into().ok()?;
    if u16::from_be_bytes(number) != port {
        return None;
    }
    let address = message.get(8..24)?;
    let address: IpAddr = if i32::from(*message.first()?) == AF_INET {
        Ipv4Addr::from(<[u8; 4]>::try_from(&address[..4]).ok()?).into()
    } else {
        Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into()
    };
    let attributes = message.get(ATTRIBUTES..).unwrap_or_default();
    let mut all = netlink_packet_core::NlasIterator::new(attributes).flatten();
    let only_ipv6 = all.any(|a| a.kind() == SKV6ONLY && a.value().first() == Some(&1));
    Some(Listener { address, only_ipv6 })
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, UdpSocket};

    use super::*;
    use crate::testing::{netns, run_in};

    fn port(transport: Transport, address: Option<&str>) -> HostPort {
        HostPort {
            transport,
            port: 8080,
            address: address.map(|text| text.parse().unwrap()),
            pod_port: 80,
        }
    }

    /// The listener that is in the way of a host port of this family.
    fn found(listen: &str, port: HostPort, family: Family) -> Option<String> {
        let netns = netns();
        run_in(&netns, &["ip", "link", "set", "lo", "up"]);
        let look = || {
            let _tcp =
                (port.transport == Transport::Tcp).then(|| TcpListener::bind(listen).unwrap());
            let _udp = (port.transport == Transport::Udp).then(|| UdpSocket::bind(listen).unwrap());
            in_use(&[port], family).unwrap()
        };
        let used = netns.run(look).unwrap();
        used.map(|(_, listener)| listener.to_string())
    }

    #[test]
    fn a_listener_is_in_the_way_of_its_own_address_and_of_every_address() {
        for transport in [Transport::Tcp, Transport::Udp] {
            let on = |listen, address| found(listen, port(transport, address), Family::V4);
            let every = Some("0.0.0.0:8080".to_owned());
            assert_eq!(on("0.0.0.0:8080", None), every);
            assert_eq!(on("0.0.0.0:8080", Some("127.0.0.1")), every);
            let one = Some("127.0.0.1:8080".to_owned());
            assert_eq!(on("127.0.0.1:8080", None), one);
            assert_eq!(on("127.0.0.1:8080", Some("127.0.0.1")), one);
            assert_eq!(on("127.0.0.1:8080", Some("127.0.0.2")), None);
            assert_eq!(on("127.0.0.1:8081", None), None, "another port");
            // Accepts both families, as most programs do.
            assert_eq!(on("[::]:8080", None), Some("[::]:8080".to_owned()));
            assert_eq!(on("[::1]:8080", None), None, "the other family");
        }
    }

    #[test]
    fn a_port_of_ipv6_meets_listeners_of_ipv6() {
        let on = |listen| found(listen, port(Transport::Tcp, None), Family::V6);
        assert_eq!(on("[::1]:8080"), Some("[::1]:8080".to_owned()));
        assert_eq!(on("[::]:8080"), Some("[::]:8080".to_owned()));
        assert_eq!(on("0.0.0.0:8080"), None);
    }

    #[test]
    fn a_connected_socket_and_another_protocol_are_not_in_the_way() {
        let netns = netns();
        run_in(&netns, &["ip", "link", "set", "lo", "up"]);
        let look = || {
            let resolver = UdpSocket::bind("127.0.0.1:8080").unwrap();
            resolver.connect("127.0.0.1:53").unwrap();
            let ports = Transport::ALL.map(|transport| port(transport, None));
            in_use(&ports, Family::V4).unwrap()
        };
        assert_eq!(netns.run(look).unwrap(), None);
    }
}
