//! Which packets leave through the primary ENI whichever ENI their pod is on, and with which source address: the chains
//! `nodeport_in` and `source_nat`, and the corresponding clauses of `choose_eni`.
//!
//! Local destinations are rules, for the reason given in [`super`]. With a set, a packet could miss them while the
//! table was replaced (since Linux 7.0 and its stable backports, the intervals of `nft_set_rbtree` appear some
//! microseconds after the rules; before, an interval of the other generation could hide one of this generation). A
//! destination in the VPC was then treated as outside of it, once, and permanently through the connection's mark.
//!
//! Owns the rows of design §4.2 about NodePort and SNAT. May use the rest of `nft`. Must not know Kubernetes or
//! the names of settings.

pub(super) mod other_family;

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::batch::{Batch, Chain, Hook};
use super::expr::{CtKey, Expr, FibType, Key, Verdict};
use super::parts::{self, RTN_LOCAL};
use crate::marks::Marks;

const NODEPORT_IN: &str = "nodeport_in";
const SOURCE_NAT: &str = "source_nat";
/// Marks the connections from `choose_eni`, except those to local destinations.
const LEAVING: &str = "leaving";
/// Translates the packets from `source_nat`, except those to local destinations.
const TRANSLATED: &str = "translated";

/// After connection tracking (−200), before DNAT (−100), where the destination is still the node's own address.
const NODEPORT_IN_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -150,
};
/// `srcnat`, the usual priority.
const SOURCE_NAT_HOOK: Hook = Hook {
    kind: "nat",
    number: Hook::POSTROUTING,
    priority: 100,
};

/// `IP_CT_NEW` as a bit of `ct state`.
const CT_NEW: u32 = 8;

/// The packets that leave through the primary ENI, and their source address. By default, only packets of its own pods,
/// without translation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Destinations that see pods' own addresses: the VPC's CIDR blocks, and those that the operator excludes. They may
    /// overlap.
    pub local: Vec<Ipv4Net>,
    /// Whether and how this node translates pods' connections to all other destinations.
    pub snat: Option<Snat>,
    /// Whether replies of connections to an address of the primary ENI leave through it, whichever pod handles them.
    pub node_ports: bool,
    /// The bits of packets' and connections' marks in use.
    pub marks: Marks,
    /// Whether pods reach destinations of the other address family, and how the source ports of these connections are
    /// chosen.
    pub other_family: Option<SourcePorts>,
}

/// Source translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snat {
    /// The primary ENI's own address.
    pub to: Ipv4Addr,
    /// How the source port is chosen.
    pub ports: SourcePorts,
}

/// How the source port of a translated connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePorts {
    /// Random for each connection: two simultaneous connections rarely choose the same port, which would cost one of
    /// them its first packet.
    #[default]
    Random,
    /// By a keyed hash of the connection. In kernels since 5.0, this is the same as [`Random`](Self::Random).
    Hashed,
    /// The original port if it is free, otherwise the next one.
    Kept,
}

impl SourcePorts {
    const fn flags(self) -> u32 {
        const RANDOM: u32 = 1 << 2;
        const RANDOM_FULLY: u32 = 1 << 4;
        match self {
            Self::Random => RANDOM_FULLY,
            Self::Hashed => RANDOM,
            Self::Kept => 0,
        }
    }
}

/// The required chains. `primary` is the link index of the primary ENI.
pub(super) fn add_chains(batch: &mut Batch, egress: &Egress, primary: u32) {
    if let Some(snat) = egress.snat {
        for name in [LEAVING, TRANSLATED] {
            batch.add_chain(&Chain { name, hook: None });
        }
        spare_local(batch, egress, snat);
        add_source_nat(batch);
    }
    if egress.node_ports {
        add_nodeport_in(batch, primary, egress.marks.primary());
    }
}

/// The clauses of `choose_eni` for packets that leave through the primary ENI whichever ENI their pod is on:
///
/// ```text
/// ct state new jump leaving
/// ct mark & 0x80 == 0x80 meta mark set meta mark & 0xffffff00 | 0x80
/// ```
///
/// A connection's first packet decides for the whole connection, as with translation. If each packet were checked, then
/// a CIDR block that is added to the VPC would move translated connections to an ENI that does not own their source
/// address.
pub(super) fn add_clauses(batch: &mut Batch, chain: &str, egress: &Egress) {
    let mark = egress.marks.primary();
    if egress.snat.is_some() {
        let jump = [Expr::Verdict(Verdict::Jump(LEAVING))];
        batch.add_rule(chain, &[&IS_NEW[..], &jump].concat());
    }
    // Without both of translation and NodePort, host ports still mark connections.
    let marked = [
        Expr::LoadCt(CtKey::Mark),
        Expr::Bitwise { mask: mark, xor: 0 },
        Expr::Equals(mark),
    ];
    let to_primary = parts::mark(egress.marks.all(), mark);
    batch.add_rule(chain, &[&marked[..], &to_primary].concat());
}

/// The first packet of a connection. If nobody answers, this matches each packet.
const IS_NEW: [Expr<'_>; 3] = [
    Expr::LoadCt(CtKey::State),
    Expr::Bitwise {
        mask: CT_NEW,
        xor: 0,
    },
    Expr::Differs(0),
];

/// Adds our bits to the connection's mark, which applies to all its packets and survives a replaced ruleset.
pub(super) const fn mark_connection(mark: u32) -> [Expr<'static>; 3] {
    [
        Expr::LoadCt(CtKey::Mark),
        Expr::Bitwise {
            mask: !mark,
            xor: mark,
        },
        Expr::StoreCtMark,
    ]
}

/// Fills the chains that local destinations leave early with the destinations of `egress`.
pub(super) fn change_local(batch: &mut Batch, egress: &Egress) {
    let Some(snat) = egress.snat else { return };
    for chain in [LEAVING, TRANSLATED] {
        batch.flush_chain(chain);
    }
    spare_local(batch, egress, snat);
}

/// ```text
/// ip daddr 10.0.0.0/16 return
/// ...the other local destinations...
/// fib daddr type local return
/// ct mark set ct mark | 0x80
/// ```
/// and the same without `fib` before `snat to`.
///
/// A packet to a local address is not delivered by its mark, but it may be forwarded with it: a proxy may bind addresses of
/// services to a device of the node, and route the rewritten packets again. The destination is not the real one yet,
/// so it does not show whether the packet leaves the VPC.
fn spare_local(batch: &mut Batch, egress: &Egress, snat: Snat) {
    let flags = snat.ports.flags();
    let translate = [Expr::Address(snat.to), Expr::SourceNat { flags }];
    let to_the_node = [
        Expr::FibType(FibType::Destination),
        Expr::Equals(RTN_LOCAL),
        Expr::Verdict(Verdict::Return),
    ];
    let connection = mark_connection(egress.marks.primary());
    let decisions = [
        (LEAVING, &[&to_the_node[..], &connection][..]),
        (TRANSLATED, &[&translate]),
    ];
    let local = disjoint(&egress.local);
    for (chain, last) in decisions {
        for prefix in &local {
            batch.add_rule(
                chain,
                &[
                    Expr::LoadDestination,
                    Expr::Network(prefix.prefix_len()),
                    Expr::IsAddress(prefix.network()),
                    Expr::Verdict(Verdict::Return),
                ],
            );
        }
        for rule in last {
            batch.add_rule(chain, rule);
        }
    }
}

/// `iif primary ct state new fib daddr . iif type local ct mark set ct mark | 0x80`
fn add_nodeport_in(batch: &mut Batch, primary: u32, mark: u32) {
    batch.add_chain(&Chain {
        name: NODEPORT_IN,
        hook: Some(NODEPORT_IN_HOOK),
    });
    let by_primary = [Expr::Load(Key::InputLink), Expr::Equals(primary)];
    let to_its_address = [
        Expr::FibType(FibType::DestinationOnInput),
        Expr::Equals(RTN_LOCAL),
    ];
    let rule = [
        &by_primary[..],
        &IS_NEW,
        &to_its_address,
        &mark_connection(mark),
    ];
    batch.add_rule(NODEPORT_IN, &rule.concat());
}

/// For any source, like the AWS VPC CNI: the VPC would also drop packets with the address of a bridge on the node. The
/// exception is a source that is an address of the output link: the node's own traffic already has the right address
/// (on a secondary ENI, the only one that the VPC accepts), and keeps its port.
fn add_source_nat(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: SOURCE_NAT,
        hook: Some(SOURCE_NAT_HOOK),
    });
    let accept = Expr::Verdict(Verdict::Return);
    let rules: [&[Expr<'_>]; 4] = [
        // Links of branch ENIs.
        &[
            Expr::Load(Key::OutputName),
            Expr::BeginsWith("vlan"),
            accept,
        ],
        &[
            Expr::FibType(FibType::Destination),
            Expr::Equals(RTN_LOCAL),
            accept,
        ],
        &[
            Expr::FibType(FibType::SourceOnOutput),
            Expr::Equals(RTN_LOCAL),
            accept,
        ],
        &[Expr::Verdict(Verdict::Goto(TRANSLATED))],
    ];
    for rule in rules {
        batch.add_rule(SOURCE_NAT, rule);
    }
}

/// The same destinations, without those that are contained in another one.
fn disjoint(nets: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut disjoint: Vec<Ipv4Net> = Vec::new();
    let mut sorted: Vec<_> = nets.iter().map(Ipv4Net::trunc).collect();
    // A containing prefix sorts before the prefixes that it contains.
    sorted.sort();
    for net in sorted {
        if !disjoint.last().is_some_and(|last| last.contains(&net)) {
            disjoint.push(net);
        }
    }
    disjoint
}

#[cfg(test)]
mod tests;
