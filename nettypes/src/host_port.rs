//! Host ports: ports of the node that lead to a pod.

use std::fmt;
use std::net::IpAddr;

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Transport {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// The protocol's number in an IP packet.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name in a network configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }

    /// The protocol with this name, in upper or lower case.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|transport| name.eq_ignore_ascii_case(transport.name()))
    }

    /// The protocol with this number.
    #[must_use]
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|transport| transport.number() == number)
    }
}

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// Of both ports.
    pub transport: Transport,
    /// The node's port, not 0.
    pub port: u16,
    /// The address of the node; `None` for each of its addresses.
    pub address: Option<IpAddr>,
    /// The pod's port, not 0.
    pub pod_port: u16,
}

impl HostPort {
    /// Whether a packet can be meant for both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let addresses = match (self.address, other.address) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        addresses && (self.transport, self.port) == (other.transport, other.port)
    }
}

/// The node's side: `8080/tcp`, `10.0.0.5:8080/tcp`, `[fd00::5]:8080/tcp`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "{}", self.port)?,
            Some(IpAddr::V4(four)) => write!(f, "{four}:{}", self.port)?,
            Some(IpAddr::V6(six)) => write!(f, "[{six}]:{}", self.port)?,
        }
        write!(f, "/{}", self.transport.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(transport: Transport, port: u16, address: Option<[u8; 4]>) -> HostPort {
        HostPort {
            transport,
            port,
            address: address.map(IpAddr::from),
            pod_port: 80,
        }
    }

    #[test]
    fn each_address_overlaps_with_every_address() {
        let (all, one) = (
            port(Transport::Tcp, 80, None),
            port(Transport::Tcp, 80, Some([10, 0, 0, 5])),
        );
        assert!(all.overlaps(&one) && one.overlaps(&all) && all.overlaps(&all));
        let others = [
            port(Transport::Tcp, 80, Some([10, 0, 0, 6])),
            port(Transport::Udp, 80, None),
            port(Transport::Tcp, 81, None),
        ];
        for other in others {
            assert!(!one.overlaps(&other), "{other}");
        }
    }

    #[test]
    fn names_and_numbers_lead_back() {
        for transport in Transport::ALL {
            assert_eq!(Transport::of_name(transport.name()), Some(transport));
            assert_eq!(Transport::of_number(transport.number()), Some(transport));
        }
        assert_eq!(Transport::of_name("TCP"), Some(Transport::Tcp));
        assert_eq!(Transport::of_name("icmp"), None);
    }

    #[test]
    fn a_port_is_printed_with_its_address_and_protocol() {
        assert_eq!(port(Transport::Udp, 53, None).to_string(), "53/udp");
        let one = port(Transport::Tcp, 80, Some([10, 0, 0, 5]));
        assert_eq!(one.to_string(), "10.0.0.5:80/tcp");
        let six = HostPort {
            address: Some("fd00::5".parse().unwrap()),
            ..one
        };
        assert_eq!(six.to_string(), "[fd00::5]:80/tcp");
    }
}
