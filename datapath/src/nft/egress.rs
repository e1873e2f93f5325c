//! What leaves by the primary ENI whichever ENI its pod is on, and under whose address: the chains `nodeport_in` and
//! `source_nat`, and the clauses of `choose_eni` that go with them.
//!
//! Local destinations are rules, for the reason that [`super`] gives. As a set they were missed by a packet that came
//! while the table was replaced (since Linux 7.0 and its stable backports, the intervals of `nft_set_rbtree` appear when
//! the rules have been in force for some microseconds; before, one of the other generation could hide one of this). So a
//! pod's neighbour was taken for a destination outside of the VPC, once, and by the connection's mark for ever.
//!
//! Owns the rows of design §4.2 on NodePort and SNAT. Knows no Kubernetes and no settings' names.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::batch::{Batch, Chain, Hook};
use super::expr::{CtKey, Expr, FibType, Key, Verdict};
use super::{MARK_ENI_MASK, RTN_LOCAL};
use crate::constants::MARK_PRIMARY;

const NODEPORT_IN: &str = "nodeport_in";
const SOURCE_NAT: &str = "source_nat";
/// Marks what `choose_eni` sends there, local destinations excepted.
const LEAVING: &str = "leaving";
/// Translates what `source_nat` sends there, local destinations excepted.
const TRANSLATED: &str = "translated";

/// After connection tracking (−200), before DNAT (−100): the destination is still the node's own address.
const NODEPORT_IN_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -150,
};
/// `srcnat`, as everybody's.
const SOURCE_NAT_HOOK: Hook = Hook {
    kind: "nat",
    number: Hook::POSTROUTING,
    priority: 100,
};

/// `IP_CT_NEW` as a bit of `ct state`.
const CT_NEW: u32 = 8;

/// What leaves by the primary ENI, and under which address. The default: nothing but its own pods' packets, as they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Egress {
    /// Destinations that see pods' own addresses: the VPC's blocks, and what the operator excludes. May overlap.
    pub local: Vec<Ipv4Net>,
    /// Whether and how pods' connections to all other destinations are translated on this node.
    pub snat: Option<Snat>,
    /// Whether replies of connections that came in by an address of the primary ENI leave by it too, whichever pod
    /// they were directed to.
    pub node_ports: bool,
    /// The bits of the packet's and the connection's mark that stand for "by the primary ENI". None of the ENI
    /// index's ([`MARK_ENI_MASK`]).
    pub mark: u32,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            local: Vec::new(),
            snat: None,
            node_ports: false,
            mark: MARK_PRIMARY,
        }
    }
}

impl Egress {
    /// Whether anything is ever marked for the primary ENI.
    #[must_use]
    pub const fn marks(&self) -> bool {
        self.node_ports || self.snat.is_some()
    }
}

/// Source translation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Snat {
    /// The primary ENI's own address.
    pub to: Ipv4Addr,
    /// How the translated port is chosen.
    pub ports: SourcePorts,
}

/// How the source port of a translated connection is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SourcePorts {
    /// At random for each connection: two that are set up at the same moment hardly ever want the same, which would
    /// cost one of them its first packet.
    #[default]
    Random,
    /// By a keyed hash of the connection. Kernels since 5.0 make no difference to [`Random`](Self::Random).
    Hashed,
    /// Kept if free, else the next one.
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

/// The chains, as far as they are wanted. `primary`: link index of the primary ENI.
pub(super) fn add_chains(batch: &mut Batch, egress: &Egress, primary: u32) {
    if let Some(snat) = egress.snat {
        for name in [LEAVING, TRANSLATED] {
            batch.add_chain(&Chain { name, hook: None });
        }
        spare_local(batch, egress, snat);
        add_source_nat(batch);
    }
    if egress.node_ports {
        add_nodeport_in(batch, primary, egress.mark);
    }
}

/// The clauses of `choose_eni` on what leaves by the primary ENI whichever ENI its pod is on:
///
/// ```text
/// ct state new jump leaving
/// ct mark & 0x80 == 0x80 meta mark set meta mark & 0xffffff00 | 0x80
/// ```
///
/// A connection's first packet decides for all of it, as it does on translation. Would each packet, then a block that is
/// added to the VPC would send connections that wear the primary's address by an ENI that may not.
pub(super) fn add_clauses(batch: &mut Batch, chain: &str, egress: &Egress) {
    let mark = egress.mark;
    if egress.snat.is_some() {
        let jump = [Expr::Verdict(Verdict::Jump(LEAVING))];
        batch.add_rule(chain, &[&IS_NEW[..], &jump].concat());
    }
    if egress.marks() {
        let marked = [
            Expr::LoadCt(CtKey::Mark),
            Expr::Bitwise { mask: mark, xor: 0 },
            Expr::Equals(mark),
        ];
        let to_primary = super::mark(MARK_ENI_MASK | mark, mark);
        batch.add_rule(chain, &[&marked[..], &to_primary].concat());
    }
}

/// The first packet of a connection; of one that nobody answers, each.
const IS_NEW: [Expr<'_>; 3] = [
    Expr::LoadCt(CtKey::State),
    Expr::Bitwise {
        mask: CT_NEW,
        xor: 0,
    },
    Expr::Differs(0),
];

/// Adds our bits to the connection's mark, which is there for all its packets, and outlives a replaced ruleset.
const fn mark_connection(mark: u32) -> [Expr<'static>; 3] {
    [
        Expr::LoadCt(CtKey::Mark),
        Expr::Bitwise {
            mask: !mark,
            xor: mark,
        },
        Expr::StoreCtMark,
    ]
}

/// Fills the chains that local destinations leave early, with the destinations of `egress` only.
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
/// ct mark set ct mark | 0x80
/// ```
/// and the same before `snat to`.
fn spare_local(batch: &mut Batch, egress: &Egress, snat: Snat) {
    let flags = snat.ports.flags();
    let translate = [Expr::Address(snat.to), Expr::SourceNat { flags }];
    let decisions = [
        (LEAVING, &mark_connection(egress.mark)[..]),
        (TRANSLATED, &translate),
    ];
    let local = disjoint(&egress.local);
    for (chain, decision) in decisions {
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
        batch.add_rule(chain, decision);
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

/// As upstream, whatever the source: an address of a bridge on the node would be dropped by the VPC just as well. Except
/// where the source is an address of the link that the packet leaves by: the node's own traffic wears the right address
/// already, by a secondary ENI even the only one that the VPC lets through, and keeps the port that it chose.
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

/// The same destinations without those that another contains.
fn disjoint(nets: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut disjoint: Vec<Ipv4Net> = Vec::new();
    let mut sorted: Vec<_> = nets.iter().map(Ipv4Net::trunc).collect();
    // A containing prefix sorts before what it contains.
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
