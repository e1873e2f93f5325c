//! The node's nftables: table `ip hawser`, which gives every packet of a pod the mark of its ENI.
//!
//! Owns the ruleset of design §4.2 and the transactions that change it. Speaks netfilter netlink itself: no binary to
//! find in an image, no lock, no text to compare. Every change is one transaction, so no packet ever meets half of it.
//! That holds for rules. What a set or a map has in a transaction comes into effect a moment before or after the rules
//! that look it up, so there are none.
//!
//! Only our own bits of a packet's or a connection's mark are ever changed.

mod batch;
mod egress;
mod expr;
mod guard;
mod ipv6;
mod list;
mod observe;

use nix::sys::socket::SockProtocol;

use crate::constants::{GROUP_BASE, MARK_ENI_MASK, MAX_ENI_INDEX};
use crate::netlink::{Channel, Error, Family};
use crate::netns::NetnsId;
use batch::{Batch, Chain, Hook};
use expr::{Expr, FibType, Key, Verdict};

pub use egress::{Egress, Snat, SourcePorts};
pub use list::Listed;
pub use observe::{Fingerprint, NftMonitor};

/// Our table. Nobody else's rules are ever touched.
const TABLE: &str = "hawser";
const CHOOSE_ENI: &str = "choose_eni";
const CHECK_SOURCE: &str = "check_source";
const MARK_ENI: &str = "mark_eni";

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
        if ruleset.check_source {
            add_check_source(&mut batch);
        }
        let egress = &ruleset.egress;
        egress::add_chains(&mut batch, egress, ruleset.primary);
        add_choose_eni(&mut batch, egress);
        if ruleset.block_metadata {
            guard::add_block_metadata(&mut batch, Family::V4);
        }
        if ruleset.refuse_ipv6 {
            guard::replace_ipv6(&mut batch);
        }
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Changes which destinations count as local to those of `egress`, and touches nothing else. It is as it was in all
    /// else, or the table is replaced. Nothing changes without [`Egress::snat`].
    ///
    /// # Errors
    /// `ENOENT` when the chains are not there; otherwise the kernel's verdict. Nothing has changed then.
    pub fn update_local(&mut self, egress: &Egress) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        egress::change_local(&mut batch, egress);
        batch.send(&mut self.channel, &mut self.seq)
    }
}

/// ```text
/// iifgroup & 0xffffff80 != 0x6b00 return
/// meta mark set meta mark & 0xffffff00
/// iifgroup != 0x6b00 jump mark_eni
/// fib daddr type local return
/// ...what leaves by the primary ENI...
/// ```
///
/// A packet to a local address is not delivered by its mark, but may be sent on with it: IPVS binds services' addresses
/// to a device of the node, and routes what it has rewritten anew. Its destination is not the real one yet, so it says
/// nothing about leaving the VPC.
///
/// Our bits are cleared for the primary's pods too. They are ours alone, but if another program, or a connection mark
/// that it restores, had left any of them set, the packet would leave by a secondary ENI with an address that is not
/// that ENI's, and the VPC would drop it without a word.
fn add_choose_eni(batch: &mut Batch, egress: &Egress) {
    add_mark_eni(batch);
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
    let clear = mark(MARK_ENI_MASK | egress.mark, 0);
    let by_secondary = [
        load,
        Expr::Differs(GROUP_BASE),
        Expr::Verdict(Verdict::Jump(MARK_ENI)),
    ];
    let local = [
        Expr::FibType(FibType::Destination),
        Expr::Equals(RTN_LOCAL),
        Expr::Verdict(Verdict::Return),
    ];
    for rule in [&foreign[..], &clear, &by_secondary, &local] {
        batch.add_rule(CHOOSE_ENI, rule);
    }
    egress::add_clauses(batch, CHOOSE_ENI, egress);
}

/// Copies the ENI's index from the link's group into the mark, `iifgroup & 1 == 1 meta mark set meta mark | 1` and so on.
/// Bit by bit: the kernel cannot combine two registers before 6.13. A map from group to mark would, but one that is
/// replaced is empty for a moment: of a million packets a thousand passed unmarked.
fn add_mark_eni(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: MARK_ENI,
        hook: None,
    });
    for bit in (0..MARK_ENI_MASK.count_ones()).map(|n| 1 << n) {
        let is_set = [
            Expr::Load(Key::InputGroup),
            Expr::Bitwise { mask: bit, xor: 0 },
            Expr::Equals(bit),
        ];
        batch.add_rule(MARK_ENI, &[&is_set[..], &mark(bit, bit)].concat());
    }
}

/// Makes these `bits` of the packet's mark `value`.
const fn mark(bits: u32, value: u32) -> [Expr<'static>; 3] {
    [
        Expr::Load(Key::Mark),
        // They are cleared by the mask, so that the exclusive or sets them.
        Expr::Bitwise {
            mask: !bits,
            xor: value,
        },
        Expr::StoreMark,
    ]
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
