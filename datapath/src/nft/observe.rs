//! Whether our tables are unchanged, and notifications about changes.
//!
//! Owns the reading side. A table is not interpreted: its objects as reported by the kernel are hashed, and the hash is
//! compared with the one after our last own change. Objects have handles that are never reused, so a table that another
//! program deleted and created again with the same rules has another hash. The folder also has what counts packets for people
//! ([`transit`]). May use the rest of `nft` and `netlink`. Must not know the desired state.

pub(super) mod transit;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP_INTR, NlasIterator};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::encoder::Encoder;
use super::socket::{Nft, PORTS_TABLE, TABLE};
use crate::netlink::{Channel, Error, Family, Frame, verdict};

const NFTABLES: u16 = 10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_ACK: u16 = 5;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
/// Concurrent transactions of others are common while a proxy updates its services.
const DUMP_ATTEMPTS: u32 = 10;

/// A hash of our tables as reported by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub(super) u64);

/// A query. Elements of other programs' sets do not change our rules.
#[derive(Clone, Copy)]
#[repr(u16)]
pub(super) enum Get {
    Table = 1,
    Chain = 4,
    Rule = 7,
    Set = 10,
    Elements = 13,
}

impl Get {
    /// The attribute of an object's name.
    const fn name(self) -> u16 {
        match self {
            Self::Chain => 3,
            Self::Table | Self::Rule | Self::Set | Self::Elements => 2,
        }
    }
}

/// In a rule, the name of its chain.
const RULE_CHAIN: u16 = 2;

impl Nft {
    /// Hashes our tables of both families.
    ///
    /// # Errors
    /// If the kernel cannot be queried, or [`Error::Interrupted`] if others kept changing things in the meantime.
    pub fn fingerprint(&mut self) -> Result<Fingerprint, Error> {
        let mut hasher = DefaultHasher::new();
        for family in [Family::V4, Family::V6] {
            let mut parts = self.contents(family, TABLE)?;
            parts.sort_unstable();
            parts.hash(&mut hasher);
        }
        Ok(Fingerprint(hasher.finish()))
    }

    /// Everything in this table of ours, except sets; empty if the table does not exist.
    pub(super) fn contents(
        &mut self,
        family: Family,
        table: &'static str,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let whole = match self.ask((family, table), Get::Table, None, false) {
            // A kernel without this family does not have its table either.
            Err(e) if e.is(Errno::ENOENT) || e.is(Errno::EAFNOSUPPORT) => return Ok(Vec::new()),
            other => other?,
        };
        let rules = self.ask((family, table), Get::Rule, None, true)?;
        let chains: BTreeSet<String> = rules.iter().filter_map(|r| text(r, RULE_CHAIN)).collect();
        let mut parts = [whole, rules].concat();
        for chain in &chains {
            parts.extend(self.ask((family, table), Get::Chain, Some(chain), false)?);
        }
        Ok(parts)
    }

    /// The attributes of each object in the answer: of the table, or of the object with this name in it.
    pub(super) fn ask(
        &mut self,
        table: (Family, &'static str),
        get: Get,
        name: Option<&str>,
        dump: bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let op = "nft get";
        for _ in 0..DUMP_ATTEMPTS {
            match self.ask_once(table, get, name, dump) {
                Err(Error::Interrupted { .. }) => {}
                other => return other,
            }
        }
        Err(Error::Interrupted {
            op,
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn ask_once(
        &mut self,
        (family, table): (Family, &'static str),
        get: Get,
        name: Option<&str>,
        dump: bool,
    ) -> Result<Vec<Vec<u8>>, Error> {
        const TABLE_NAME: u16 = 1;
        let op = "nft get";
        self.seq = self.seq.wrapping_add(1);
        let (seq, port) = (self.seq, self.channel.port);
        let flags = if dump {
            NLM_F_REQUEST_DUMP
        } else {
            NLM_F_REQUEST_ACK
        };
        let message = Encoder::message(family, NFTABLES << 8 | get as u16, flags, seq, |out| {
            out.string(TABLE_NAME, table);
            if let Some(name) = name {
                out.string(get.name(), name);
            }
        });
        self.channel.enlarge();
        self.channel.send(op, &message)?;
        let (mut objects, mut disturbed) = (Vec::new(), false);
        loop {
            for frame in self.channel.receive(op)? {
                let frame = frame?;
                if frame.seq != seq || frame.port != port {
                    continue;
                }
                disturbed |= frame.flags & NLM_F_DUMP_INTR != 0;
                if frame.kind != NLMSG_ERROR && frame.kind != NLMSG_DONE {
                    objects.extend(attributes(&frame).map(<[u8]>::to_vec));
                    continue;
                }
                verdict(op, &frame)?;
                if disturbed {
                    return Err(Error::Interrupted { op, attempts: 1 });
                }
                return Ok(objects);
            }
        }
    }
}

/// The part after the generic netfilter header. The header contains the number of the namespace's last transaction.
fn attributes<'a>(frame: &Frame<'a>) -> Option<&'a [u8]> {
    const NFGENMSG: usize = 4;
    frame.payload().get(NFGENMSG..)
}

fn text(object: &[u8], attribute: u16) -> Option<String> {
    let mut all = NlasIterator::new(object).flatten();
    let found = all.find(|a| a.kind() == attribute)?;
    let text = std::str::from_utf8(found.value()).ok()?;
    Some(text.trim_end_matches('\0').to_owned())
}

/// Notifications about our tables.
#[derive(Debug)]
pub struct NftMonitor {
    channel: Channel,
    /// Ports of sockets whose changes are not reported.
    ignored: Vec<u32>,
}

impl NftMonitor {
    /// Subscribes in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] if the kernel cannot create a socket.
    pub fn open() -> Result<Self, Error> {
        /// Bit of the multicast group `NFNLGRP_NFTABLES`.
        const GROUP: u32 = 1 << 6;
        let mut channel = Channel::open(SockProtocol::NetlinkNetFilter, GROUP)?;
        channel.expect_floods();
        Ok(Self {
            channel,
            ignored: Vec::new(),
        })
    }

    /// Does not report what is changed through the socket with this port.
    pub fn ignore(&mut self, port: u32) {
        self.ignored.push(port);
    }

    /// Whether any of our objects was changed, by us or by others, since the last call. Does not wait. Lost
    /// notifications count as a change.
    ///
    /// # Errors
    /// If the socket fails.
    pub fn touched(&mut self) -> Result<bool, Error> {
        let mut touched = false;
        loop {
            match self.channel.try_receive("nft watch") {
                Err(e) if e.errno() == Some(Errno::ENOBUFS) => touched = true,
                Ok(None) => return Ok(touched),
                other => {
                    for frame in other?.into_iter().flatten() {
                        let frame = frame?;
                        touched |= !self.ignored.contains(&frame.port) && is_about_us(&frame);
                    }
                }
            }
        }
    }
}

impl AsFd for NftMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}

/// Tables, chains, rules, sets and elements all have the table's name as their first attribute.
fn is_about_us(frame: &Frame<'_>) -> bool {
    const TABLE_NAME: u16 = 1;
    let about_nftables = frame.kind >> 8 == NFTABLES;
    about_nftables
        && attributes(frame)
            .and_then(|all| text(all, TABLE_NAME))
            .is_some_and(|name| name == TABLE || name == PORTS_TABLE)
}

#[cfg(test)]
mod tests;
