//! Connection tracking: deletes the kernel's entries of deleted pods.
//!
//! An entry outlives its pod by minutes or days. The next pod with the same address would inherit translations that
//! were made for the previous one: clients of a service would be sent to it, and its own connections would be
//! translated to another port. Owns finding and deleting these entries by address, and those of UDP to ports of the node,
//! which decided where the port leads when they were made. Never touches other entries, and creates none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use nix::libc::{AF_INET, AF_INET6};
use nix::sys::socket::SockProtocol;
use tracing::trace;

use crate::netlink::{Channel, Errno, Error, Frame, align4, verdict};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

// linux/netfilter/nfnetlink.h and nfnetlink_conntrack.h: the subsystem is the upper byte.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TUPLE_ORIG: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const ID: u16 = 12;
const ZONE: u16 = 18;
/// Attributes within a tuple, and within its IP part.
const TUPLE_IP: u16 = 1;
/// IPv4 source and destination, IPv6 source and destination.
const IP: std::ops::RangeInclusive<u16> = 1..=4;
const IP_SOURCE: [u16; 2] = [1, 3];
const IP_DESTINATION: [u16; 2] = [2, 4];
/// Within a tuple, and within its protocol part.
const TUPLE_PROTOCOL: u16 = 2;
const PROTOCOL_NUMBER: u16 = 1;
const PROTOCOL_DESTINATION: u16 = 3;
const UDP: u8 = 17;
/// Flags of an attribute's type: nested, network byte order.
const TYPE_FLAGS: u16 = 0xc000;
/// `nfgenmsg`: family, version, resource.
const GENERIC: usize = 4;

/// Deletions per datagram; see the batches of the route socket.
const BATCH: usize = 64;

/// A socket for the connection tracking of one namespace.
#[derive(Debug)]
pub struct Conntrack {
    channel: Channel,
    seq: u32,
}

impl Conntrack {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] if the kernel cannot create a socket, or has no netfilter netlink.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::open(SockProtocol::NetlinkNetFilter, 0)?,
            seq: 0,
        })
    }

    /// Deletes every connection that involves one of `addresses`, on either side of a translation, and returns their
    /// number. Reads the whole table once for any number of addresses: kernels before 6.10 cannot filter deletions, and
    /// kernels before 5.8 cannot filter the list.
    ///
    /// # Errors
    /// The kernel's error for the list or for the first failed deletion. All other deletions have been tried.
    pub fn forget(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<usize, Error> {
        let mut deleted = 0;
        for (family, wanted) in [
            (AF_INET, addresses.iter().any(IpAddr::is_ipv4)),
            (AF_INET6, addresses.iter().any(IpAddr::is_ipv6)),
        ] {
            if wanted {
                let family = u8::try_from(family).expect("families are small numbers");
                deleted += self.forget_those(family, |entry| involves(entry, addresses))?;
            }
        }
        Ok(deleted)
    }

    /// Deletes every UDP connection to one of these ports at one of these addresses of the node that leads elsewhere than to
    /// the pods of its port, and returns their number: a client that keeps sending from one port would not notice that the
    /// port leads elsewhere now.
    ///
    /// # Errors
    /// As [`Conntrack::forget`].
    pub fn forget_udp(
        &mut self,
        ports: &BTreeMap<u16, BTreeSet<IpAddr>>,
        at: &BTreeSet<IpAddr>,
    ) -> Result<usize, Error> {
        let mut deleted = 0;
        for (family, wanted) in [
            (AF_INET, at.iter().any(IpAddr::is_ipv4)),
            (AF_INET6, at.iter().any(IpAddr::is_ipv6)),
        ] {
            if wanted && !ports.is_empty() {
                let family = u8::try_from(family).expect("families are small numbers");
                deleted += self.forget_those(family, |entry| is_misled(entry, ports, at))?;
            }
        }
        Ok(deleted)
    }

    fn forget_those(&mut self, family: u8, wanted: impl Fn(&[u8]) -> bool) -> Result<usize, Error> {
        let mut deleted = 0;
        for keys in self.find(family, wanted)?.chunks(BATCH) {
            deleted += self.delete(family, keys)?;
        }
        Ok(deleted)
    }

    /// The keys of the entries that are wanted.
    fn find(&mut self, family: u8, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Vec<u8>>, Error> {
        let op = "conntrack list";
        self.channel.enlarge();
        self.seq = self.seq.wrapping_add(1);
        let mut out = Vec::new();
        append(&mut out, GET, NLM_F_DUMP, self.seq, family, &[]);
        self.channel.send(op, &out)?;
        let (seq, port) = (self.seq, self.channel.port);
        let mut found = Vec::new();
        loop {
            for frame in self.channel.receive(op)? {
                let frame = frame?;
                if frame.seq != seq || frame.port != port {
                    trace!(seq = frame.seq, "stale netlink answer skipped");
                    continue;
                }
                match frame.kind {
                    NLMSG_ERROR => verdict(op, &frame)?,
                    NLMSG_DONE => return verdict(op, &frame).map(|()| found),
                    _ => found.extend(key(&frame, &wanted)),
                }
            }
        }
    }

    fn delete(&mut self, family: u8, keys: &[Vec<u8>]) -> Result<usize, Error> {
        let op = "conntrack delete";
        let first = self.seq.wrapping_add(1);
        let mut out = Vec::new();
        for key in keys {
            self.seq = self.seq.wrapping_add(1);
            append(&mut out, DELETE, NLM_F_ACK, self.seq, family, key);
        }
        self.channel.send(op, &out)?;
        let port = self.channel.port;
        let (mut pending, mut deleted, mut failed) = (keys.len(), 0, None);
        while pending > 0 {
            for frame in self.channel.receive(op)? {
                let frame = frame?;
                let position = usize::try_from(frame.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
                if frame.port != port || frame.kind != NLMSG_ERROR || position >= keys.len() {
                    continue;
                }
                pending -= 1;
                match verdict(op, &frame) {
                    Ok(()) => deleted += 1,
                    // The entry expired in the meantime.
                    Err(error) if error.is(Errno::ENOENT) => {}
                    Err(error) => failed = failed.or(Some(error)),
                }
            }
        }
        failed.map_or(Ok(deleted), Err)
    }
}

fn append(out: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, family: u8, attributes: &[u8]) {
    let length = 16 + GENERIC + attributes.len();
    let length = u32::try_from(length).expect("a key is a few dozen bytes");
    out.extend(length.to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend(seq.to_ne_bytes());
    // The port, which the kernel fills in. Then the generic header: version and resource are zero.
    out.extend([0; 4]);
    out.extend([family, 0, 0, 0]);
    out.extend(attributes);
    out.resize(align4(out.len()), 0);
}

/// The data that the kernel needs to find the entry again, if it is wanted: original tuple, zone, and the id. With the id, an
/// entry that was created again in between is not deleted.
fn key(frame: &Frame<'_>, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
    let entry = frame.payload().get(GENERIC..)?;
    let parts = attributes(entry).filter(|a| matches!(a.kind, TUPLE_ORIG | ZONE | ID));
    wanted(entry).then(|| parts.flat_map(|a| a.padded).copied().collect())
}

/// Whether one of `addresses` takes part in the connection.
fn involves(entry: &[u8], addresses: &BTreeSet<IpAddr>) -> bool {
    attributes(entry)
        .filter(|a| a.kind == TUPLE_ORIG || a.kind == TUPLE_REPLY)
        .flat_map(|tuple| attributes(tuple.value).filter(|a| a.kind == TUPLE_IP))
        .flat_map(|ip| attributes(ip.value).filter(|a| IP.contains(&a.kind)))
        .filter_map(|a| address(a.value))
        .any(|found| addresses.contains(&found))
}

/// Whether it is a UDP connection to one of these ports at one of these addresses, which leads to no pod of the port.
fn is_misled(entry: &[u8], ports: &BTreeMap<u16, BTreeSet<IpAddr>>, at: &BTreeSet<IpAddr>) -> bool {
    let (mut is_udp, mut pods, mut destination, mut replies) = (false, None, None, None);
    for tuple in attributes(entry) {
        for part in attributes(tuple.value) {
            for attribute in attributes(part.value) {
                let (kind, value) = (attribute.kind, attribute.value);
                match (tuple.kind, part.kind) {
                    (TUPLE_ORIG, TUPLE_IP) if IP_DESTINATION.contains(&kind) => {
                        destination = address(value);
                    }
                    (TUPLE_REPLY, TUPLE_IP) if IP_SOURCE.contains(&kind) => {
                        replies = address(value);
                    }
                    (TUPLE_ORIG, TUPLE_PROTOCOL) if kind == PROTOCOL_NUMBER => {
                        is_udp = value == [UDP];
                    }
                    (TUPLE_ORIG, TUPLE_PROTOCOL) if kind == PROTOCOL_DESTINATION => {
                        let port = value.try_into().ok().map(u16::from_be_bytes);
                        pods = port.and_then(|port| ports.get(&port));
                    }
                    _ => {}
                }
            }
        }
    }
    let to_port = is_udp && destination.is_some_and(|destination| at.contains(&destination));
    to_port && pods.is_some_and(|pods| replies.is_none_or(|replies| !pods.contains(&replies)))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// One netlink attribute.
struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
    /// The whole attribute, including header and padding.
    padded: &'a [u8],
}

/// The attributes in `bytes`. A truncated attribute ends the list.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = Attribute<'_>> {
    std::iter::from_fn(move || {
        let number = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let (length, kind) = (usize::from(number(0)?), number(2)? & !TYPE_FLAGS);
        let value = bytes.get(4..length)?;
        let (padded, rest) = bytes
            .split_at_checked(align4(length))
            .unwrap_or((bytes, &[]));
        bytes = rest;
        Some(Attribute {
            kind,
            value,
            padded,
        })
    })
}

#[cfg(test)]
mod tests;
