//! Host ports: table `hawser_ports` of the pods' family, with one map entry per port and the same rules for any number of
//! pods.
//!
//! The table is made with the first port and then stays: ports are elements that come and go, each with its pod. Its rules
//! can be replaced without its maps, so no packet ever misses an element. [`entries`] has the elements.
//!
//! May use the rest of `nft`. Must not know which pods there are: that is the caller's.
//!
//! ```text
//! chain prerouting {                      chain to_pod {
//!   type nat hook prerouting priority -95   dnat to ip daddr . meta l4proto . th dport map @by_address
//!   ip daddr @services return               dnat to meta l4proto . th dport map @by_port
//!   fib daddr type local iif primary      }
//!     jump to_pod_by_primary
//!   fib daddr type local jump to_pod
//! }
//! ```
//!
//! - *Order.* After kube-proxy (−100, `iptables` and `nftables` alike): a NodePort or an external address of a service wins
//!   against a host port, as with the standard plugin `portmap`. Before `choose_eni` (−90), which needs the real
//!   destination.
//! - *IPVS.* In this mode, kube-proxy gives the node the addresses of all services. They are in a set that the rules leave
//!   out, because a host port 80 would take the port 80 of every service.
//! - *Replies.* Connections that come in by the primary ENI get its bit in their mark, so that replies leave by it, whichever
//!   ENI their pod is on.
//! - *From the pod itself, and from the node's 127.0.0.1.* The source is translated, or the pod would answer to itself.
//! - *127.0.0.1.* The kernel sends it over a pod's link only with `route_localnet` on that link, and then also accepts it
//!   there. `guard_loopback` drops what a pod sends to it, before connection tracking: replies have the node's address then.

mod entries;

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;

use nix::errno::Errno;

use super::batch::{Batch, Chain, Hook, Layout, Set};
use super::egress::mark_connection;
use super::expr::{Expr, FibType, Field, Key, Register, Verdict};
use super::list::{attribute, text};
use super::observe::{Fingerprint, Get};
use super::parts::{POD_GROUP, RTN_LOCAL};
use super::socket::{Nft, PORTS_TABLE as TABLE};
use crate::constants::{GROUP_BASE, GROUP_INDEX_MASK};
use crate::netlink::{Error, Family};

pub use entries::PortEntry;

/// From address, protocol and port of the node to address and port of the pod.
const BY_ADDRESS: &str = "by_address";
/// The same for every address of the node.
const BY_PORT: &str = "by_port";
/// The addresses of pods with host ports, each twice: as source and destination of a packet that a pod sends to itself.
const TO_ITSELF: &str = "to_itself";

/// Addresses that the node has for services.
const SERVICES: &str = "services";

const TO_POD: &str = "to_pod";
const TO_POD_BY_PRIMARY: &str = "to_pod_by_primary";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";
const POSTROUTING: &str = "postrouting";
const GUARD_LOOPBACK: &str = "guard_loopback";
const SETS: [&str; 4] = [BY_ADDRESS, BY_PORT, TO_ITSELF, SERVICES];
const CHAINS: [&str; 6] = [
    TO_POD,
    TO_POD_BY_PRIMARY,
    PREROUTING,
    OUTPUT,
    POSTROUTING,
    GUARD_LOOPBACK,
];

/// After kube-proxy's −100, before −90 of `choose_eni`.
const DESTINATION: i32 = -95;
/// Before kube-proxy's 100 and ours: both leave these packets alone, but need not be asked.
const SOURCE: i32 = 95;
/// Before connection tracking (−200).
const RAW: i32 = -300;

const LOOPBACK: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 0);
const LOOPBACK_PREFIX: u8 = 8;

/// What the rules depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRules {
    /// Of the pods' addresses.
    pub family: Family,
    /// Link index of the primary ENI, and the bits of a connection's mark with which its replies leave by it. `None` if there
    /// is no other ENI.
    pub primary: Option<(u32, u32)>,
}

impl Nft {
    /// Makes the table, or replaces its rules. The elements stay.
    ///
    /// # Errors
    /// The kernel's error; nothing has changed. `EEXIST` or `EBUSY` if parts of the table are not as we make them.
    pub fn set_up_ports(&mut self, rules: &PortRules) -> Result<(), Error> {
        let mut batch = Batch::new(rules.family, TABLE);
        batch.add_table();
        write(&mut batch, rules);
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Makes the table again, with these elements: somebody else has changed it.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn replace_ports(
        &mut self,
        rules: &PortRules,
        entries: &BTreeSet<PortEntry>,
    ) -> Result<(), Error> {
        let mut batch = Batch::new(rules.family, TABLE);
        batch.add_table();
        batch.del_table();
        batch.add_table();
        write(&mut batch, rules);
        batch.send(&mut self.channel, &mut self.seq)?;
        self.change_ports(rules.family, entries, &BTreeSet::new())
    }

    /// Removes the table. If it is not there, this is no error.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn remove_ports(&mut self, family: Family) -> Result<(), Error> {
        let mut batch = Batch::new(family, TABLE);
        batch.add_table();
        batch.del_table();
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Hashes the table except its elements; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Nft::fingerprint`].
    pub fn ports_fingerprint(&mut self, family: Family) -> Result<Option<Fingerprint>, Error> {
        let mut parts = self.contents(family, TABLE)?;
        if parts.is_empty() {
            return Ok(None);
        }
        for set in self.ask((family, TABLE), Get::Set, None, true)? {
            // The rest of a set counts its elements.
            const HANDLE: u16 = 16;
            let name = text(&set, 2).unwrap_or_default();
            parts.push(
                [
                    name.into_bytes(),
                    attribute(&set, HANDLE).unwrap_or_default(),
                ]
                .concat(),
            );
        }
        parts.sort_unstable();
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Ok(Some(Fingerprint(hasher.finish())))
    }

    /// The elements of the table; `None` if it does not exist, or has not our maps.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn ports(&mut self, family: Family) -> Result<Option<BTreeSet<PortEntry>>, Error> {
        let mut found = BTreeSet::new();
        for set in SETS {
            match self.ask((family, TABLE), Get::Elements, Some(set), true) {
                Ok(parts) => {
                    found.extend(parts.iter().flat_map(|part| entries::read(family, part)));
                }
                Err(e) if e.is(Errno::ENOENT) || e.is(Errno::EAFNOSUPPORT) => return Ok(None),
                Err(e) => return Err(e),
            }
        }
        Ok(Some(found))
    }

    /// Adds and removes elements in one transaction.
    ///
    /// # Errors
    /// The kernel's error; nothing has changed. `EEXIST`, or `EBUSY` in earlier kernels, if a port leads to another pod;
    /// `ENOENT` if one to be removed is not there.
    pub fn change_ports(
        &mut self,
        family: Family,
        add: &BTreeSet<PortEntry>,
        remove: &BTreeSet<PortEntry>,
    ) -> Result<(), Error> {
        if add.is_empty() && remove.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new(family, TABLE);
        for set in SETS {
            batch.del_elements(set, &entries::elements(set, remove));
        }
        for set in SETS {
            batch.add_elements(set, &entries::elements(set, add));
        }
        batch.send(&mut self.channel, &mut self.seq)
    }
}

fn write(batch: &mut Batch, rules: &PortRules) {
    let family = rules.family;
    for (number, set) in (1..).zip(sets(family)) {
        batch.add_set(&set, number);
    }
    for name in CHAINS {
        let hook = hook_of(name);
        batch.add_chain(&Chain { name, hook });
        batch.flush_chain(name);
    }
    for map in [BY_ADDRESS, BY_PORT] {
        batch.add_rule(TO_POD, &[find(map, family), to_found(family)].concat());
        if let Some((_, mark)) = rules.primary {
            let marked = mark_connection(mark);
            let rule = [&find(map, family)[..], &marked, &to_found(family)].concat();
            batch.add_rule(TO_POD_BY_PRIMARY, &rule);
        }
    }
    let to_the_node = [Expr::FibType(FibType::Destination), Expr::Equals(RTN_LOCAL)];
    let jump = [Expr::Verdict(Verdict::Jump(TO_POD))];
    let to_a_service = [
        Expr::FieldInto(destination(family), KEY),
        Expr::IsIn {
            set: SERVICES,
            key: KEY,
        },
        Expr::Verdict(Verdict::Return),
    ];
    for chain in [PREROUTING, OUTPUT] {
        batch.add_rule(chain, &to_a_service);
    }
    if let Some((link, _)) = rules.primary {
        let by_primary = [Expr::Load(Key::InputLink), Expr::Equals(link)];
        let jump = [Expr::Verdict(Verdict::Jump(TO_POD_BY_PRIMARY))];
        batch.add_rule(PREROUTING, &[&to_the_node[..], &by_primary, &jump].concat());
    }
    for chain in [PREROUTING, OUTPUT] {
        batch.add_rule(chain, &[&to_the_node[..], &jump].concat());
    }
    write_sources(batch, family);
}

fn hook_of(chain: &str) -> Option<Hook> {
    let (kind, number, priority) = match chain {
        PREROUTING => ("nat", Hook::PREROUTING, DESTINATION),
        OUTPUT => ("nat", Hook::OUTPUT, DESTINATION),
        POSTROUTING => ("nat", Hook::POSTROUTING, SOURCE),
        GUARD_LOOPBACK => ("filter", Hook::PREROUTING, RAW),
        _ => return None,
    };
    Some(Hook {
        kind,
        number,
        priority,
    })
}

/// What is translated on its way to a pod, and what a pod must not send:
///
/// ```text
/// ip saddr . ip daddr @to_itself masquerade
/// ip saddr 127.0.0.0/8 oifgroup & 0xffffff80 == 0x6b00 masquerade
/// ip saddr 127.0.0.0/8 iifgroup & 0xffffff80 == 0x6b00 drop
/// ip daddr 127.0.0.0/8 iifgroup & 0xffffff80 == 0x6b00 drop
/// ```
fn write_sources(batch: &mut Batch, family: Family) {
    let addresses = Register(0);
    let (source, destination) = (source(family), destination(family));
    let itself = [
        Expr::FieldInto(source, addresses),
        Expr::FieldInto(destination, addresses.after(words(family))),
        Expr::IsIn {
            set: TO_ITSELF,
            key: addresses,
        },
        Expr::Masquerade { flags: 0 },
    ];
    batch.add_rule(POSTROUTING, &itself);
    if family == Family::V6 {
        // A packet from ::1 cannot leave the node's loopback, and no other address of it exists.
        return;
    }
    let loopback = |field| {
        [
            Expr::FieldInto(field, Register(0)),
            Expr::Network(LOOPBACK_PREFIX),
            Expr::IsAddress(LOOPBACK),
        ]
    };
    let by_a_pod = |load| {
        let within = Expr::Bitwise {
            mask: !GROUP_INDEX_MASK,
            xor: 0,
        };
        [load, within, Expr::Equals(GROUP_BASE)]
    };
    let [load, ..] = POD_GROUP;
    let to_pod = by_a_pod(Expr::Load(Key::OutputGroup));
    let rule = [
        &loopback(source)[..],
        &to_pod,
        &[Expr::Masquerade { flags: 0 }],
    ]
    .concat();
    batch.add_rule(POSTROUTING, &rule);
    for field in [source, destination] {
        let drop = [Expr::Verdict(Verdict::Drop)];
        let rule = [&loopback(field)[..], &by_a_pod(load), &drop].concat();
        batch.add_rule(GUARD_LOOPBACK, &rule);
    }
}

/// Where a key starts, and where a value.
const KEY: Register = Register(0);
const VALUE: Register = Register(8);

/// Looks the packet up in a map.
fn find(map: &'static str, family: Family) -> Vec<Expr<'static>> {
    let (mut key, mut loads) = (KEY, Vec::new());
    if map == BY_ADDRESS {
        loads.push(Expr::FieldInto(destination(family), key));
        key = key.after(words(family));
    }
    loads.extend([
        Expr::LoadInto(Key::Transport, key),
        Expr::FieldInto(Field::Transport(2, 2), key.after(1)),
        Expr::Find {
            map,
            key: KEY,
            value: VALUE,
        },
    ]);
    loads
}

/// Translates to what [`find`] has found.
fn to_found(family: Family) -> Vec<Expr<'static>> {
    vec![Expr::DestinationNat {
        family,
        address: VALUE,
        port: VALUE.after(words(family)),
    }]
}

const fn source(family: Family) -> Field {
    match family {
        Family::V4 => Field::Network(12, 4),
        Family::V6 => Field::Network(8, 16),
    }
}

const fn destination(family: Family) -> Field {
    match family {
        Family::V4 => Field::Network(16, 4),
        Family::V6 => Field::Network(24, 16),
    }
}

/// The length of an address in registers.
const fn words(family: Family) -> u32 {
    match family {
        Family::V4 => 1,
        Family::V6 => 4,
    }
}

fn sets(family: Family) -> [Set<'static>; 4] {
    const PROTOCOL: u32 = 12;
    const PORT: u32 = 13;
    let address = match family {
        Family::V4 => 7,
        Family::V6 => 8,
    };
    let layout = |types: &[u32], words| Layout {
        types: types.iter().fold(0, |all, each| all << 6 | each),
        len: 4 * words,
    };
    let to = Some(layout(&[address, PORT], words(family) + 1));
    [
        Set {
            name: BY_ADDRESS,
            key: layout(&[address, PROTOCOL, PORT], words(family) + 2),
            value: to,
        },
        Set {
            name: BY_PORT,
            key: layout(&[PROTOCOL, PORT], 2),
            value: to,
        },
        Set {
            name: TO_ITSELF,
            key: layout(&[address, address], 2 * words(family)),
            value: None,
        },
        Set {
            name: SERVICES,
            key: layout(&[address], words(family)),
            value: None,
        },
    ]
}

#[cfg(test)]
mod tests;
