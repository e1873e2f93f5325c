//! What a pod asks of its network besides an address, in messages: host ports and bandwidth.
//!
//! Owns the rules for their values, which hold for both sides. Must not know how either is served.

use std::collections::BTreeMap;

use nettypes::{Bandwidth, HostPort, RateLimit, Transport};

use crate::address::{AddressError, ip, octets};
use crate::v1;

/// The largest number of host ports of one pod. A call must fit into the first window of HTTP/2.
pub const PORTS_MAX: usize = 1024;

/// Values that no pod can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// A port that does not exist.
    #[error("{field} {value} is not a number from 1 to 65535")]
    Port {
        /// The name of the field in the contract.
        field: &'static str,
        /// Its value.
        value: u32,
    },
    /// A protocol of another release, or none.
    #[error("host port {port} has the unknown protocol {value}")]
    Protocol {
        /// The node's port.
        port: u16,
        /// The number in the message.
        value: i32,
    },
    /// The node's address is malformed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The pod asks twice for a port, for different ports of its own.
    #[error("host port {port} leads to the pod's ports {one} and {another}")]
    Twice {
        /// The node's port.
        port: HostPort,
        /// The pod's port in the first entry.
        one: u16,
        /// The pod's port in a later entry.
        another: u16,
    },
    /// More than [`PORTS_MAX`].
    #[error("{count} host ports are more than {PORTS_MAX}")]
    TooMany {
        /// Their number.
        count: usize,
    },
    /// A rate that is too small to send one packet in a reasonable time.
    #[error(
        "{direction} rate of {rate} bit/s is below {} bit/s",
        RateLimit::RATE_MIN
    )]
    Rate {
        /// ingress, egress
        direction: &'static str,
        /// Bits per second.
        rate: u64,
    },
    /// No packet could ever be sent.
    #[error("{direction} burst is 0, so no packet could be sent")]
    Burst {
        /// ingress, egress
        direction: &'static str,
    },
}

/// Reads the host ports of a pod, in their order, each once.
///
/// # Errors
/// [`AskedError`]
pub fn host_ports(messages: &[v1::PortMapping]) -> Result<Vec<HostPort>, AskedError> {
    let ports: Result<Vec<_>, _> = messages.iter().map(host_port).collect();
    distinct(ports?)
}

/// The same ports without repetitions.
///
/// # Errors
/// [`AskedError::Twice`], [`AskedError::TooMany`]
pub fn distinct(ports: Vec<HostPort>) -> Result<Vec<HostPort>, AskedError> {
    let mut known = BTreeMap::new();
    let mut distinct = Vec::new();
    for port in ports {
        let key = (port.transport, port.port, port.address);
        match known.insert(key, port.pod_port) {
            None => distinct.push(port),
            Some(one) if one == port.pod_port => {}
            Some(one) => {
                let another = port.pod_port;
                return Err(AskedError::Twice { port, one, another });
            }
        }
    }
    match distinct.len() {
        0..=PORTS_MAX => Ok(distinct),
        count => Err(AskedError::TooMany { count }),
    }
}

fn host_port(message: &v1::PortMapping) -> Result<HostPort, AskedError> {
    let port = number("host_port", message.host_port)?;
    let transport = match message.protocol() {
        v1::Protocol::Tcp => Transport::Tcp,
        v1::Protocol::Udp => Transport::Udp,
        v1::Protocol::Sctp => Transport::Sctp,
        v1::Protocol::Unspecified => {
            let value = message.protocol;
            return Err(AskedError::Protocol { port, value });
        }
    };
    let address = match message.host_ip.as_slice() {
        [] => None,
        bytes => Some(ip("host_ip", bytes)?).filter(|address| !address.is_unspecified()),
    };
    Ok(HostPort {
        transport,
        port,
        address,
        pod_port: number("container_port", message.container_port)?,
    })
}

fn number(field: &'static str, value: u32) -> Result<u16, AskedError> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(AskedError::Port { field, value }),
    }
}

impl From<HostPort> for v1::PortMapping {
    fn from(port: HostPort) -> Self {
        let protocol = match port.transport {
            Transport::Tcp => v1::Protocol::Tcp,
            Transport::Udp => v1::Protocol::Udp,
            Transport::Sctp => v1::Protocol::Sctp,
        };
        Self {
            host_port: port.port.into(),
            container_port: port.pod_port.into(),
            protocol: protocol.into(),
            host_ip: port.address.map(octets).unwrap_or_default(),
        }
    }
}

/// Reads the limits of a pod.
///
/// # Errors
/// [`AskedError::Rate`], [`AskedError::Burst`]
pub fn bandwidth(message: Option<v1::Bandwidth>) -> Result<Bandwidth, AskedError> {
    let message = message.unwrap_or_default();
    Ok(Bandwidth {
        ingress: limit("ingress", message.ingress_rate, message.ingress_burst)?,
        egress: limit("egress", message.egress_rate, message.egress_burst)?,
    })
}

/// The limit of a direction; `None` if both numbers are 0.
///
/// # Errors
/// [`AskedError::Rate`], [`AskedError::Burst`]
pub fn limit(
    direction: &'static str,
    rate: u64,
    burst: u64,
) -> Result<Option<RateLimit>, AskedError> {
    match (rate, burst) {
        (0, 0) => Ok(None),
        (0..RateLimit::RATE_MIN, _) => Err(AskedError::Rate { direction, rate }),
        (_, 0) => Err(AskedError::Burst { direction }),
        _ => Ok(Some(RateLimit { rate, burst })),
    }
}

/// The message for these limits; `None` if there is none.
#[must_use]
pub fn message(bandwidth: Bandwidth) -> Option<v1::Bandwidth> {
    let (ingress, egress) = (bandwidth.ingress, bandwidth.egress);
    let rate = |limit: Option<RateLimit>| limit.map_or(0, |limit| limit.rate);
    let burst = |limit: Option<RateLimit>| limit.map_or(0, |limit| limit.burst);
    (!bandwidth.is_unlimited()).then(|| v1::Bandwidth {
        ingress_rate: rate(ingress),
        ingress_burst: burst(ingress),
        egress_rate: rate(egress),
        egress_burst: burst(egress),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(host_port: u32, container_port: u32) -> v1::PortMapping {
        v1::PortMapping {
            host_port,
            container_port,
            protocol: v1::Protocol::Tcp.into(),
            host_ip: Vec::new(),
        }
    }

    #[test]
    fn ports_and_limits_survive_a_message() {
        let ports = vec![
            HostPort {
                transport: Transport::Sctp,
                port: 65535,
                address: Some("fd00::5".parse().unwrap()),
                pod_port: 1,
            },
            HostPort {
                transport: Transport::Udp,
                port: 53,
                address: None,
                pod_port: 5353,
            },
        ];
        let messages: Vec<_> = ports.iter().copied().map(Into::into).collect();
        assert_eq!(host_ports(&messages), Ok(ports));
        let limits = Bandwidth {
            ingress: None,
            egress: Some(RateLimit {
                rate: u64::MAX,
                burst: 1,
            }),
        };
        assert_eq!(bandwidth(message(limits)), Ok(limits));
        assert_eq!(bandwidth(None), Ok(Bandwidth::default()));
        assert_eq!(message(Bandwidth::default()), None);
    }

    #[test]
    fn a_port_that_does_not_exist_is_refused() {
        for (host, pod) in [(0, 80), (65536, 80), (80, 0), (80, 65536)] {
            let error = host_ports(&[mapping(host, pod)]).unwrap_err();
            assert!(matches!(error, AskedError::Port { .. }), "{error}");
        }
        let unknown = v1::PortMapping {
            protocol: 7,
            ..mapping(80, 80)
        };
        let error = host_ports(&[unknown]).unwrap_err().to_string();
        assert_eq!(error, "host port 80 has the unknown protocol 7");
        let broken = v1::PortMapping {
            host_ip: vec![1, 2, 3],
            ..mapping(80, 80)
        };
        assert!(matches!(host_ports(&[broken]), Err(AskedError::Address(_))));
    }

    #[test]
    fn a_repeated_port_counts_once_and_a_contradiction_is_refused() {
        let any = v1::PortMapping {
            host_ip: vec![0, 0, 0, 0],
            ..mapping(80, 8080)
        };
        assert_eq!(host_ports(&[mapping(80, 8080), any]).unwrap().len(), 1);
        let error = host_ports(&[mapping(80, 8080), mapping(80, 8081)]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "host port 80/tcp leads to the pod's ports 8080 and 8081"
        );
        let many: Vec<_> = (1..=1025).map(|port| mapping(port, 80)).collect();
        assert!(host_ports(&many[..1024]).is_ok());
        assert!(matches!(
            host_ports(&many),
            Err(AskedError::TooMany { count: 1025 })
        ));
    }

    #[test]
    fn a_limit_has_a_rate_and_a_burst() {
        assert_eq!(limit("egress", 0, 0), Ok(None));
        for (rate, burst) in [(0, 1), (999, 1), (1000, 0)] {
            assert!(limit("egress", rate, burst).is_err(), "{rate} {burst}");
        }
        assert!(limit("egress", 1000, 1).is_ok());
    }
}
