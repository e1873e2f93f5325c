//! The elements of the sets and maps of host ports: from a pod's ports to bytes, and back.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::NlasIterator;
use nettypes::{HostPort, Transport};

use super::super::batch::{DATA_VALUE, ELEMENT_DATA, ELEMENT_KEY, Element, LIST_ELEMENTS};
use super::super::list::attribute;
use super::{BY_ADDRESS, BY_PORT, SERVICES, TO_ITSELF, words};
use crate::netlink::Family;

/// One element, of the set or map that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortEntry {
    /// A port of the node leads to this pod.
    Port(HostPort, IpAddr),
    /// What this pod sends to itself gets another source.
    ToItself(IpAddr),
    /// An address that the node has for a service: its ports lead to no pod.
    Service(IpAddr),
}

impl PortEntry {
    /// The elements of a pod with these ports.
    #[must_use]
    pub fn of(pod: IpAddr, ports: &[HostPort]) -> BTreeSet<Self> {
        let mut entries: BTreeSet<_> = ports.iter().map(|port| Self::Port(*port, pod)).collect();
        if !entries.is_empty() {
            entries.insert(Self::ToItself(pod));
        }
        entries
    }

    const fn set(&self) -> &'static str {
        match self {
            Self::Port(port, _) if port.address.is_some() => BY_ADDRESS,
            Self::Port(..) => BY_PORT,
            Self::ToItself(_) => TO_ITSELF,
            Self::Service(_) => SERVICES,
        }
    }

    fn encoded(&self) -> Element {
        match self {
            Self::Port(port, pod) => (key(port), Some(value(port, *pod))),
            Self::ToItself(pod) => (octets(*pod).repeat(2), None),
            Self::Service(address) => (octets(*address), None),
        }
    }
}

/// Those in this set or map.
pub(super) fn elements(set: &str, entries: &BTreeSet<PortEntry>) -> Vec<Element> {
    let in_set = entries.iter().filter(|entry| entry.set() == set);
    in_set.map(PortEntry::encoded).collect()
}

fn key(port: &HostPort) -> Vec<u8> {
    let mut key = port.address.map(octets).unwrap_or_default();
    key.extend([port.transport.number(), 0, 0, 0]);
    key.extend(padded(port.port));
    key
}

fn value(port: &HostPort, pod: IpAddr) -> Vec<u8> {
    let mut value = octets(pod);
    value.extend(padded(port.pod_port));
    value
}

/// A port in network byte order, and two bytes of nothing.
const fn padded(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(four) => four.octets().into(),
        IpAddr::V6(six) => six.octets().into(),
    }
}

/// The elements in one message of the kernel's answer. Those that are not as ours are skipped.
pub(super) fn read(family: Family, message: &[u8]) -> Vec<PortEntry> {
    let list = attribute(message, LIST_ELEMENTS).unwrap_or_default();
    let each = NlasIterator::new(&list[..]).flatten();
    each.filter_map(|element| entry(family, element.value()))
        .collect()
}

fn entry(family: Family, element: &[u8]) -> Option<PortEntry> {
    let part = |kind| attribute(&attribute(element, kind)?, DATA_VALUE);
    let key = part(ELEMENT_KEY)?;
    let Some(value) = part(ELEMENT_DATA) else {
        let (address, rest) = address_in(&key, family)?;
        return Some(match rest {
            [] => PortEntry::Service(address),
            _ => PortEntry::ToItself(address),
        });
    };
    let (pod, pod_port) = address_in(&value, family)?;
    /// Protocol and port.
    const WITHOUT_ADDRESS: usize = 8;
    let (address, rest) = match key.len() {
        WITHOUT_ADDRESS => (None, &key[..]),
        _ => address_in(&key, family).map(|(address, rest)| (Some(address), rest))?,
    };
    let ([protocol, _, _, _, high, low, ..], [pod_high, pod_low, ..]) = (rest, pod_port) else {
        return None;
    };
    let port = HostPort {
        transport: Transport::of_number(*protocol)?,
        port: u16::from_be_bytes([*high, *low]),
        address,
        pod_port: u16::from_be_bytes([*pod_high, *pod_low]),
    };
    Some(PortEntry::Port(port, pod))
}

/// The address at the start, and what follows.
fn address_in(bytes: &[u8], family: Family) -> Option<(IpAddr, &[u8])> {
    let length = usize::try_from(4 * words(family)).ok()?;
    let (address, rest) = bytes.split_at_checked(length)?;
    let address = match family {
        Family::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(address).ok()?).into(),
        Family::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(address).ok()?).into(),
    };
    Some((address, rest))
}
