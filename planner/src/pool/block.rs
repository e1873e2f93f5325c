//! Addresses as EC2 hands them out: blocks of one (a secondary address) or of sixteen (a /28 prefix).
//!
//! Owns the state of each address and the counts per block. Counts are recomputed from the addresses after every
//! change, never adjusted: upstream's running totals have drifted (aws/amazon-vpc-cni-k8s #2042, #2085).

use std::{net::Ipv4Addr, ops::AddAssign};

use ipnet::Ipv4Net;

use crate::{Mono, Pod, Sandbox};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    /// Granted, and not known to be wired.
    Reserved,
    Assigned,
    /// Released; other nodes may still send to the old pod here.
    Cooling {
        until: Mono,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Holder {
    pub sandbox: Sandbox,
    pub pod: Pod,
}

#[derive(Clone, Debug)]
pub(crate) struct Slot {
    pub address: Ipv4Addr,
    pub state: SlotState,
    /// When it entered its state.
    pub since: Mono,
    /// When a pod last left it; `Mono::ZERO` if none ever did. The longest rested is granted first.
    pub released: Mono,
    pub holder: Option<Box<Holder>>,
}

/// EC2 does not list a block that we hold. Nothing is removed on one witness: the block rests until EC2 lists it
/// again, or has twice not listed it and no pod is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub since: Mono,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub net: Ipv4Net,
    /// When EC2 gave it to us, or when we first saw it.
    pub since: Mono,
    pub doubt: Option<Doubt>,
    /// EC2 was asked to take it back.
    pub releasing: bool,
    pub slots: Vec<Slot>,
    pub counts: Counts,
}

/// Addresses by the state that people are shown; a block in doubt or on its way back hides what is below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub free: u32,
    pub reserved: u32,
    pub assigned: u32,
    pub cooling: u32,
    pub quarantined: u32,
    pub releasing: u32,
    /// Addresses with a sandbox, whatever state covers them.
    pub held: u32,
    /// Addresses that rest, whatever state covers them.
    pub resting: u32,
    /// Usable /28 blocks, and those of them that are wholly free.
    pub prefixes: u32,
    pub free_prefixes: u32,
}

impl Counts {
    /// Addresses that serve or could serve pods.
    pub(crate) const fn total(&self) -> u32 {
        self.free + self.reserved + self.assigned + self.cooling
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.free += other.free;
        self.reserved += other.reserved;
        self.assigned += other.assigned;
        self.cooling += other.cooling;
        self.quarantined += other.quarantined;
        self.releasing += other.releasing;
        self.held += other.held;
        self.resting += other.resting;
        self.prefixes += other.prefixes;
        self.free_prefixes += other.free_prefixes;
    }
}

impl Block {
    pub(crate) fn new(net: Ipv4Net, now: Mono) -> Self {
        let slots = addresses(net)
            .map(|address| Slot {
                address,
                state: SlotState::Free,
                since: now,
                released: Mono::ZERO,
                holder: None,
            })
            .collect();
        let mut block = Self {
            net,
            since: now,
            doubt: None,
            releasing: false,
            slots,
            counts: Counts::default(),
        };
        block.recount();
        block
    }

    pub(crate) const fn is_prefix(&self) -> bool {
        self.net.prefix_len() < 32
    }

    /// Whether its free addresses may be granted.
    pub(crate) const fn usable(&self) -> bool {
        self.doubt.is_none() && !self.releasing
    }

    /// Usable, and every address of it free.
    pub(crate) const fn wholly_free(&self) -> bool {
        self.usable() && self.counts.free == self.counts.total()
    }

    /// Nobody is on it and nothing rests on it.
    pub(crate) const fn idle(&self) -> bool {
        self.counts.held == 0 && self.counts.resting == 0
    }

    pub(crate) fn recount(&mut self) {
        let mut counts = Counts::default();
        for slot in &self.slots {
            counts.held += u32::from(slot.holder.is_some());
            counts.resting += u32::from(matches!(slot.state, SlotState::Cooling { .. }));
            *match slot.state {
                _ if self.releasing => &mut counts.releasing,
                _ if self.doubt.is_some() => &mut counts.quarantined,
                SlotState::Free => &mut counts.free,
                SlotState::Reserved => &mut counts.reserved,
                SlotState::Assigned => &mut counts.assigned,
                SlotState::Cooling { .. } => &mut counts.cooling,
            } += 1;
        }
        if self.is_prefix() && self.usable() {
            counts.prefixes = 1;
            counts.free_prefixes = u32::from(counts.free == counts.total());
        }
        self.counts = counts;
    }
}

/// All addresses of a block: EC2 routes a prefix as a whole, so network and broadcast address serve too.
fn addresses(net: Ipv4Net) -> impl Iterator<Item = Ipv4Addr> {
    let first = u32::from(net.network());
    let size = 1_u32 << (32 - u32::from(net.prefix_len()).max(24));
    (0..size).map(move |n| Ipv4Addr::from(first.wrapping_add(n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_sixteen_addresses() {
        let block = Block::new("10.0.0.16/28".parse().unwrap(), Mono::ZERO);
        assert_eq!(
            block.counts,
            Counts {
                free: 16,
                prefixes: 1,
                free_prefixes: 1,
                ..Counts::default()
            }
        );
        assert_eq!(block.slots[0].address, Ipv4Addr::new(10, 0, 0, 16));
        assert_eq!(block.slots[15].address, Ipv4Addr::new(10, 0, 0, 31));
    }

    #[test]
    fn doubt_hides_but_does_not_forget() {
        let mut block = Block::new("10.0.0.16/32".parse().unwrap(), Mono::ZERO);
        block.slots[0].state = SlotState::Cooling { until: Mono::ZERO };
        block.doubt = Some(Doubt { since: Mono::ZERO });
        block.recount();
        assert_eq!(
            block.counts,
            Counts {
                quarantined: 1,
                resting: 1,
                ..Counts::default()
            }
        );
        assert!(!block.idle(), "a resting address keeps its block");
    }
}
