//! The node's nftables: table `ip hawser`, which gives every packet of a pod the mark of its ENI.
//!
//! Owns the ruleset of design §4.2 and the transactions that change it. Speaks netfilter netlink itself: no binary to
//! find in an image, no lock, no text to compare. Every change is one transaction, so no packet ever meets half of it.
//!
//! Chains that are to come beside `choose_eni`: `nodeport_in` (prerouting, −150), whose connection mark a clause in
//! front of the map look-up will turn into 0x80, and `source_nat` (postrouting), with the set of local prefixes that
//! both it and that clause consult.

mod batch;
mod expr;
mod observe;

use nix::sys::socket::SockProtocol;

use crate::constants::{GROUP_BASE, MARK_MASK, MAX_ENI_INDEX, group};
use crate::netlink::{Channel, Error};
use crate::netns::NetnsId;
use batch::{Batch, Chain, Hook};
use expr::{Expr, Key, Verdict};

pub use observe::{Fingerprint, Watch};

/// Our table. Nobody else's rules are ever touched.
const TABLE: &str = "hawser";
const CHOOSE_ENI: &str = "choose_eni";
const CHECK_SOURCE: &str = "check_source";
const ENI_OF_GROUP: &str = "eni_of_group";

/// After DNAT (−100): the destination is then the real one. Before the routing decision in any case.
const CHOOSE_ENI_HOOK: Hook = Hook {
    number: Hook::PREROUTING,
    priority: -90,
};
/// Before connection tracking (−200): a forged packet shall not make an entry.
const CHECK_SOURCE_HOOK: Hook = Hook {
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
}

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
        let mut batch = Batch::new(TABLE);
        // Deleting what is not there would fail the transaction; so it is made first.
        batch.add_table();
        batch.del_table();
        batch.add_table();
        batch.add_verdict_map(ENI_OF_GROUP);
        if ruleset.check_source {
            add_check_source(&mut batch);
        }
        // Before the ENIs' chains, so that one that comes later stands in the same place in a listing.
        add_choose_eni(&mut batch);
        add_eni_chain(&mut batch, 0);
        for index in ruleset.enis.iter().filter(|index| **index != 0) {
            add_eni_chain(&mut batch, *index);
        }
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Marks the packets of pods on ENI `index` from now on. Nothing changes when they are marked already.
    ///
    /// # Errors
    /// `ENOENT` when the table is not there; otherwise the kernel's verdict. Nothing has changed then.
    pub fn add_eni(&mut self, index: u16) -> Result<(), Error> {
        let mut batch = Batch::new(TABLE);
        add_eni_chain(&mut batch, index);
        batch.send(&mut self.channel, &mut self.seq)
    }

    /// Marks the packets of pods on ENI `index` no longer. Nothing changes when none are marked.
    ///
    /// # Errors
    /// As [`Nft::add_eni`].
    pub fn remove_eni(&mut self, index: u16) -> Result<(), Error> {
        let mut batch = Batch::new(TABLE);
        // Made first, for the same reason as the table in `replace`: the kernel before 6.3 has no "delete if there".
        add_eni_chain(&mut batch, index);
        batch.del_element(ENI_OF_GROUP, group(index));
        batch.flush_chain(&eni_chain(index));
        batch.del_chain(&eni_chain(index));
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
fn add_eni_chain(batch: &mut Batch, index: u16) {
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
            // Our eight bits are cleared by the mask, so that the exclusive or sets them.
            Expr::Bitwise {
                mask: !MARK_MASK,
                xor: index.into(),
            },
            Expr::StoreMark,
        ],
    );
    batch.add_element(ENI_OF_GROUP, group(index), Verdict::Jump(&name));
}

/// `fib daddr type local return; iifgroup vmap @eni_of_group`. Links that are not a pod's have no element in the map,
/// and fall through.
fn add_choose_eni(batch: &mut Batch) {
    const RTN_LOCAL: u32 = 2;
    batch.add_chain(&Chain {
        name: CHOOSE_ENI,
        hook: Some(CHOOSE_ENI_HOOK),
    });
    batch.add_rule(
        CHOOSE_ENI,
        &[
            Expr::FibDestinationType,
            Expr::Equals(RTN_LOCAL),
            Expr::Verdict(Verdict::Return),
        ],
    );
    batch.add_rule(
        CHOOSE_ENI,
        &[Expr::Load(Key::InputGroup), Expr::VerdictMap(ENI_OF_GROUP)],
    );
}

/// `iifgroup & 0xffffff80 == 0x6b00 fib saddr . iif oif missing drop`: from a pod link, and the way back to the source
/// is not over that link.
fn add_check_source(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: CHECK_SOURCE,
        hook: Some(CHECK_SOURCE_HOOK),
    });
    batch.add_rule(
        CHECK_SOURCE,
        &[
            Expr::Load(Key::InputGroup),
            Expr::Bitwise {
                mask: !u32::from(MAX_ENI_INDEX),
                xor: 0,
            },
            Expr::Equals(GROUP_BASE),
            Expr::FibSourceIsRoutedBack,
            Expr::Equals(0),
            Expr::Verdict(Verdict::Drop),
        ],
    );
}

#[cfg(test)]
mod tests;
