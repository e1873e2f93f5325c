//! The node's nftables: table `ip hawser`, which gives every packet of a pod the mark of its ENI.
//!
//! Owns the ruleset of design §4.2 and the transactions that change it. Speaks netfilter netlink itself: no binary to
//! find in an image, no lock, no text to compare. Every change is one transaction, so no packet ever meets half of it.
//!
//! Only our own bits of a packet's or a connection's mark are ever changed.

mod batch;
mod egress;
mod expr;
mod guard;
mod ipv6;
mod list;
mod observe;

use ipnet::Ipv4Net;
use nix::sys::socket::SockProtocol;

use crate::constants::{GROUP_BASE, MARK_ENI_MASK, MAX_ENI_INDEX, group};
use crate::netlink::{Channel, Error, Family};
use crate::netns::NetnsId;
use batch::{Batch, Chain, Hook};
use expr::{Expr, FibType, Key, Verdict};

pub use egress::{Egress, Snat, SourcePorts};
pub use list::Listed;
pub use observe::{Fingerprint, Watch};

/// Our table. Nobody else's rules are ever touched.
const TABLE: &str = "hawser";
const CHOOSE_ENI: &str = "choose_eni";
const CHECK_SOURCE: &str = "check_source";
const ENI_OF_GROUP: &str = "eni_of_group";

/// After DNAT (−100): the destination is then the real one. Before the routing decision in any case.
const CHOOSE_ENI_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -90,
};
/// Before connection tracking (−200): a forged packet shall not make an entry.
const CHECK_SOURCE_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -300,
};

/// The whole of the table, as it shall be.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Indices of the ENIs that have pods to mark. The primary (0) is always there.
    pub enis: std::collections::BTreeSet<u16>,
    /// Drop what a pod sends from an address that is not routed to it. The kernel's reverse path filter does that at
    /// less cost, unless `net.ipv4.conf.all.rp_filter` is 2, which makes every device's strict setting a loose one.
    pub check_source: bool,
    /// Link index of the primary ENI.
    pub primary: u32,
    /// What leaves by the primary ENI, and under which address.
    pub egress: Egress,
    /// Pods do not reach the instance metadata service.
    pub block_metadata: bool,
    /// Which addresses pods have. What is of IPv6 is neither marked nor translated: of all this there is only the check of
    /// sources then, and what keeps pods from the metadata service, in table `ip6 hawser`.
    pub pods: Family,
    /// Pods have no IPv6 and are not heard over it. Otherwise table `ip6 hawser` is not touched.
    pub refuse_ipv6: bool,
}

/// The route type of a local address.
const RTN_LOCAL: u32 = 2;

/// A netfilter socket.
#[derive(Debug)]
pub struct Nft {
    channel: Channel,
    seq: u32,
}

impl Nft {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] when the kernel has none to give, or no netfilter netlink.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::open(SockProtocol::NetlinkNetFilter, 0)?,
            seq: 0,
        })
    }

    /// Which namespace this socket acts in. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// [`Error::Socket`] without that capability.
    pub fn netns_id(&self) -> Result<NetnsId, Error> {
        self.channel.netns_id()
    }

    /// Replaces the whole table, or makes it.
    ///
    /// # Errors
    /// The kernel's verdict; the table is then as it was.
    pub fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        if ruleset.pods == Family::V6 {
            return self.replace_ipv6(ruleset.block_metadata);
        }
        let mut batch = Batch::new(Family::V4, TABLE);
        // Deleting what is not there would fail the transaction; so it is made first.
        batch.add_table();
        batch.del_table();
        batch.add_table();
        batch.add_verdict_map(ENI_OF_GROUP);
        if ruleset.check_source {
            add_check_source(&mut batch);
        }
        let egress = &ruleset.egress;
        egress::add_chains(&mut batch, egress, ruleset.primary);
        // Before the ENIs' chains, so that one that comes later stands in the same place in a listing.
        add_choose_eni(&mut batch, egress);
        add_eni_chain(&mut batch, 0, egress.mark);
        for index in ruleset.enis.iter().filter(|index| **index != 0) {
            add_eni_chain(&mut batch, *index, egress.mark);
        }
        if ruleset.block_metadata {
            guard::add_block_metadata(&mut batch, Family::V4);
        }
        if ruleset.refuse_ipv6 {
            guard::replace_ipv6(&mut batch);
        }
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Marks the packets of pods on ENI `index` from now on, and clears `primary_mark` ([`Egress::mark`]) in them.
    /// Nothing changes when they are marked already.
    ///
    /// # Errors
    /// `ENOENT` when the table is not there; otherwise the kernel's verdict. Nothing has changed then.
    pub fn add_eni(&mut self, index: u16, primary_mark: u32) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        add_eni_chain(&mut batch, index, primary_mark);
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Marks the packets of pods on ENI `index` no longer. Nothing changes when none are marked.
    ///
    /// # Errors
    /// As [`Nft::add_eni`].
    pub fn remove_eni(&mut self, index: u16) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        // Made first, for the same reason as the table in `replace`: the kernel before 6.3 has no "delete if there".
        add_eni_chain(&mut batch, index, 0);
        batch.del_element(ENI_OF_GROUP, group(index));
        batch.flush_chain(&eni_chain(index));
        batch.del_chain(&eni_chain(index));
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Changes which destinations count as local, from `old` to `new` (each as in [`Egress::local`]), and touches
    /// nothing else: what stays is local throughout.
    ///
    /// # Errors
    /// `ENOENT` when there is no such set, as with [`Egress::snat`] off, or it did not hold what `old` says; otherwise
    /// the kernel's verdict. Nothing has changed then.
    pub fn update_local(&mut self, old: &[Ipv4Net], new: &[Ipv4Net]) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        egress::change_local(&mut batch, old, new);
        batch.send(&mut self.channel, &mut self.seq)
    }
}

fn eni_chain(index: u16) -> String {
    format!("eni_{index}")
}

/// A chain that writes the ENI's index into the mark, and the map's element that leads there.
///
/// The primary has one too, which clears our bits. They are ours alone, but if another program, or a connection mark
/// that it restores, had left any of them set, the packet would leave by a secondary ENI with an address that is not
/// that ENI's, and the VPC would drop it without a word.
fn add_eni_chain(batch: &mut Batch, index: u16, primary_mark: u32) {
    let name = eni_chain(index);
    batch.add_chain(&Chain {
        name: &name,
        hook: None,
    });
    batch.flush_chain(&name);
    batch.add_rule(
        &name,
        &[
            Expr::Load(Key::Mark),
            // Our bits are cleared by the mask, so that the exclusive or sets them.
            Expr::Bitwise {
                mask: !(MARK_ENI_MASK | primary_mark),
                xor: index.into(),
            },
            Expr::StoreMark,
        ],
    );
    batch.add_element(ENI_OF_GROUP, group(index), Verdict::Goto(&name));
}

/// ```text
/// iifgroup & 0xffffff80 != 0x6b00 return
/// fib daddr type local iifgroup vmap @eni_of_group
/// ...what leaves by the primary ENI...
/// iifgroup vmap @eni_of_group
/// ```
///
/// A packet to a local address is not delivered by its mark, but may be sent on with it: IPVS binds services' addresses
/// to a device of the node, and routes what it has rewritten anew. Its destination is not the real one yet, so it says
/// nothing about leaving the VPC.
fn add_choose_eni(batch: &mut Batch, egress: &Egress) {
    let by_group = [Expr::Load(Key::InputGroup), Expr::VerdictMap(ENI_OF_GROUP)];
    batch.add_chain(&Chain {
        name: CHOOSE_ENI,
        hook: Some(CHOOSE_ENI_HOOK),
    });
    let [load, within] = POD_GROUP;
    let foreign = [
        load,
        within,
        Expr::Differs(GROUP_BASE),
        Expr::Verdict(Verdict::Return),
    ];
    batch.add_rule(CHOOSE_ENI, &foreign);
    let local = [Expr::FibType(FibType::Destination), Expr::Equals(RTN_LOCAL)];
    batch.add_rule(CHOOSE_ENI, &[&local[..], &by_group].concat());
    egress::add_clauses(batch, CHOOSE_ENI, egress);
    batch.add_rule(CHOOSE_ENI, &by_group);
}

/// The group of the link that the packet came from, without the ENI's index; [`GROUP_BASE`] for a pod's link.
const POD_GROUP: [Expr<'_>; 2] = [
    Expr::Load(Key::InputGroup),
    Expr::Bitwise {
        mask: !(MAX_ENI_INDEX as u32),
        xor: 0,
    },
];

/// `iifgroup & 0xffffff80 == 0x6b00 fib saddr . iif oif missing drop`: from a pod link, and the way back to the source
/// is not over that link.
fn add_check_source(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: CHECK_SOURCE,
        hook: Some(CHECK_SOURCE_HOOK),
    });
    let [load, within] = POD_GROUP;
    batch.add_rule(
        CHECK_SOURCE,
        &[
            load,
            within,
            Expr::Equals(GROUP_BASE),
            Expr::FibSourceIsRoutedBack,
            Expr::Equals(0),
            Expr::Verdict(Verdict::Drop),
        ],
    );
}

#[cfg(test)]
mod tests;
