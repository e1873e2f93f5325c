//! Every table, chain, rule and set of the namespace, of all programs, as text: for remote support.
//!
//! Expressions are not interpreted: each is shown by its name and the bytes of its attributes. Nothing is changed.

use std::fmt;

use netlink_packet_core::NlasIterator;

use super::socket::Nft;
use crate::netlink::{Error, verdict};

const NFTABLES: u16 = 10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST_DUMP: u16 = 0x301;

/// One object of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listed {
    Table {
        family: u8,
        name: String,
    },
    Chain {
        family: u8,
        table: String,
        name: String,
        /// Hook number and priority; `None` for a chain without a hook.
        hook: Option<(u32, i32)>,
    },
    Rule {
        family: u8,
        table: String,
        chain: String,
        /// The name, and the attributes in hexadecimal.
        expressions: Vec<String>,
    },
    Set {
        family: u8,
        table: String,
        name: String,
    },
}

impl Nft {
    /// All objects of the namespace in the kernel's order: tables, chains, sets, rules. Other programs may change them
    /// during the listing. The listing is for humans, so that is not an error.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn list(&mut self) -> Result<Vec<Listed>, Error> {
        const GET: [u16; 4] = [1, 4, 10, 7];
        let mut all = Vec::new();
        for get in GET {
            self.dump(get, |kind, payload| all.extend(read(kind, payload)))?;
        }
        Ok(all)
    }

    /// Every object of one kind, as the kernel sends it.
    pub(crate) fn dump(
        &mut self,
        get: u16,
        mut visit: impl FnMut(u16, &[u8]),
    ) -> Result<(), Error> {
        let op = "nft list";
        self.seq = self.seq.wrapping_add(1);
        let (seq, port) = (self.seq, self.channel.port);
        self.channel.enlarge();
        self.channel.send(op, &request(get, seq))?;
        loop {
            for frame in self.channel.receive(op)? {
                let frame = frame?;
                if frame.seq != seq || frame.port != port {
                    continue;
                }
                match frame.kind {
                    NLMSG_ERROR | NLMSG_DONE => return verdict(op, &frame),
                    kind => visit(kind, frame.payload()),
                }
            }
        }
    }
}

/// A dump request for every family: `struct nlmsghdr`, then `struct nfgenmsg`.
fn request(get: u16, seq: u32) -> Vec<u8> {
    const LENGTH: u32 = 20;
    let mut message = Vec::new();
    message.extend(LENGTH.to_ne_bytes());
    message.extend((NFTABLES << 8 | get).to_ne_bytes());
    message.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
    message.extend(seq.to_ne_bytes());
    message.extend([0; 4 + 4]);
    message
}

fn read(kind: u16, payload: &[u8]) -> Option<Listed> {
    const NFGENMSG: usize = 4;
    let family = *payload.first()?;
    let object = payload.get(NFGENMSG..)?;
    let table = || text(object, 1);
    // The number of the notification is the number of the request minus one.
    match kind & 0xff {
        0 => Some(Listed::Table {
            family,
            name: table()?,
        }),
        3 => Some(Listed::Chain {
            family,
            table: table()?,
            name: text(object, 3)?,
            hook: attribute(object, 4).and_then(|nested| hook(&nested)),
        }),
        6 => Some(Listed::Rule {
            family,
            table: table()?,
            chain: text(object, 2)?,
            expressions: attribute(object, 4)
                .map(|list| expressions(&list))
                .unwrap_or_default(),
        }),
        9 => Some(Listed::Set {
            family,
            table: table()?,
            name: text(object, 2)?,
        }),
        _ => None,
    }
}

pub(crate) fn attribute(object: &[u8], wanted: u16) -> Option<Vec<u8>> {
    let mut all = NlasIterator::new(object).flatten();
    let found = all.find(|a| a.kind() == wanted)?;
    Some(found.value().to_vec())
}

pub(crate) fn text(object: &[u8], wanted: u16) -> Option<String> {
    let text = String::from_utf8(attribute(object, wanted)?).ok()?;
    Some(text.trim_end_matches('\0').to_owned())
}

fn hook(nested: &[u8]) -> Option<(u32, i32)> {
    let number = u32::from_be_bytes(attribute(nested, 1)?.try_into().ok()?);
    let priority = i32::from_be_bytes(attribute(nested, 2)?.try_into().ok()?);
    Some((number, priority))
}

fn expressions(list: &[u8]) -> Vec<String> {
    let each = NlasIterator::new(list).flatten();
    let shown = each.filter_map(|element| {
        let name = text(element.value(), 1)?;
        let data = attribute(element.value(), 2).unwrap_or_default();
        let bytes: Vec<_> = NlasIterator::new(&data[..])
            .flatten()
            .map(|a| format!("{}={}", a.kind(), hexadecimal(a.value())))
            .collect();
        Some(format!("{name}({})", bytes.join(" ")))
    });
    shown.collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) const fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "unknown",
    }
}

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table { family, name } => write!(f, "table {} {name}", family_name(*family)),
            Self::Chain {
                family,
                table,
                name,
                hook,
            } => {
                write!(f, "chain {} {table} {name}", family_name(*family))?;
                match hook {
                    Some((number, priority)) => write!(f, " hook {number} priority {priority}"),
                    None => Ok(()),
                }
            }
            Self::Set {
                family,
                table,
                name,
            } => write!(f, "set {} {table} {name}", family_name(*family)),
            Self::Rule {
                family,
                table,
                chain,
                expressions,
            } => write!(
                f,
                "rule {} {table} {chain}: {}",
                family_name(*family),
                expressions.join(" ")
            ),
        }
    }
}
