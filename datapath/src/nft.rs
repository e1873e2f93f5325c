//! The node's nftables: table `ip hawser`, which marks every packet of a pod with its ENI.
//!
//! Owns the ruleset of design §4.2 and the transactions that change it. Uses netfilter netlink directly: no binary in
//! the image, no lock, no text to compare. Every change is one transaction, so no packet sees a partial change. This is
//! true for rules. The contents of sets and maps take effect slightly before or after the rules that use them, so there
//! are no sets and no maps.
//!
//! Only our own bits of a packet's or connection's mark are changed.

mod batch;
mod egress;
mod encoder;
mod expr;
mod guard;
mod ipv6;
pub(crate) mod list;
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

/// Our table. Rules of other programs are never changed.
const TABLE: &str = "hawser";
const CHOOSE_ENI: &str = "choose_eni";
const CHECK_SOURCE: &str = "check_source";
const MARK_ENI: &str = "mark_eni";

/// After DNAT (−100), where the destination is the real one. Always before the routing decision.
const CHOOSE_ENI_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -90,
};
/// Before connection tracking (−200), so that a forged packet creates no entry.
const CHECK_SOURCE_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -300,
};

/// The desired contents of the table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// Drop packets of a pod with a source address that is not routed to it. The kernel's reverse path filter does this
    /// at a lower cost, unless `net.ipv4.conf.all.rp_filter` is 2, which turns every device's strict setting into a
    /// loose one.
    pub check_source: bool,
    /// Link index of the primary ENI.
    pub primary: u32,
    /// The packets that leave through the primary ENI, and their source address.
    pub egress: Egress,
    /// Pods cannot reach the instance metadata service.
    pub block_metadata: bool,
    /// The address family of pods. IPv6 packets are neither marked nor translated. For IPv6, there are only the source
    /// check and the block of the metadata service, in table `ip6 hawser`.
    pub pods: Family,
    /// Pods have no IPv6, and their IPv6 packets are dropped. Otherwise, table `ip6 hawser` is not touched.
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
    /// [`Error::Socket`] if the kernel cannot create a socket, or has no netfilter netlink.
    pub fn open() -> Result<Self, Error> {
        Ok(Self {
            channel: Channel::open(SockProtocol::NetlinkNetFilter, 0)?,
            seq: 0,
        })
    }

    /// The namespace in which this socket acts. Needs `CAP_NET_ADMIN` over it.
    ///
    /// # Errors
    /// [`Error::Socket`] without that capability.
    pub fn netns_id(&self) -> Result<NetnsId, Error> {
        self.channel.netns_id()
    }

    /// Replaces the whole table, or creates it.
    ///
    /// # Errors
    /// The kernel's error. The table is then unchanged.
    pub fn replace(&mut self, ruleset: &Ruleset) -> Result<(), Error> {
        if ruleset.pods == Family::V6 {
            return self.replace_ipv6(ruleset.block_metadata);
        }
        let mut batch = Batch::new(Family::V4, TABLE);
        // Deleting a table that does not exist would fail the transaction, so it is created first.
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

    /// Removes our tables of both families. Tables that are not there are no error.
    ///
    /// # Errors
    /// The kernel's error; the tables are then unchanged.
    pub fn remove(&mut self) -> Result<(), Error> {
        let mut batch = Batch::new(Family::V4, TABLE);
        for family in [Family::V4, Family::V6] {
            batch.turn_to(family, TABLE);
            // Deleting a table that is not there would fail the transaction, so it is made first.
            batch.add_table();
            batch.del_table();
        }
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Changes the local destinations to those of `egress`, and nothing else. Everything else must be unchanged, or the
    /// table must be replaced. Without [`Egress::snat`], nothing changes.
    ///
    /// # Errors
    /// `ENOENT` if the chains do not exist; otherwise the kernel's error. In both cases nothing has changed.
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
/// A packet to a local address is not delivered by its mark, but it may be forwarded with it: IPVS binds addresses of
/// services to a device of the node, and routes the rewritten packets again. The destination is not the real one yet,
/// so it does not show whether the packet leaves the VPC.
///
/// Our bits are also cleared for pods on the primary ENI. If another program, or a connection mark that it restores,
/// had set any of them, the packet would leave through a secondary ENI with an address that this ENI does not own, and
/// the VPC would drop it silently.
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

/// Copies the ENI's index from the link's group into the mark, `iifgroup & 1 == 1 meta mark set meta mark | 1` and so
/// on. This is done bit by bit, because kernels before 6.13 cannot combine two registers. A map from group to mark
/// could do it, but a map that is being replaced is empty for a moment: of a million packets, a thousand passed without
/// a mark.
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

/// Sets these `bits` of the packet's mark to `value`.
const fn mark(bits: u32, value: u32) -> [Expr<'static>; 3] {
    [
        Expr::Load(Key::Mark),
        // The mask clears them, so that the exclusive or sets them.
        Expr::Bitwise {
            mask: !bits,
            xor: value,
        },
        Expr::StoreMark,
    ]
}

/// The group of the packet's input link, without the ENI's index; [`GROUP_BASE`] for a pod's link.
const POD_GROUP: [Expr<'_>; 2] = [
    Expr::Load(Key::InputGroup),
    Expr::Bitwise {
        mask: !(MAX_ENI_INDEX as u32),
        xor: 0,
    },
];

/// `iifgroup & 0xffffff80 == 0x6b00 fib saddr . iif oif missing drop`: the packet is from a pod link, and the route
/// back to its source does not use this link.
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
