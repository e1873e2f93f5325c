//! Addresses as EC2 assigns them: blocks of one (a secondary address), of sixteen (a /28 prefix), or an IPv6 /80
//! prefix.
//!
//! A /80 has too many addresses for a list. Its block starts with [`LISTED`] of them, as many as a /28 has, and each other
//! address is added when it is first needed. An address that is not listed is free.
//!
//! Owns the state of each address and the counts per block. Counts are recomputed from the addresses after every
//! change and never adjusted: upstream's running totals have drifted (aws/amazon-vpc-cni-k8s #2042, #2085).

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::AddAssign,
};

use ipnet::IpNet;

use crate::{HostClaim, Mono, Pod, Sandbox, unit::Unit};

/// How many addresses of an IPv6 prefix are listed from the start. They are granted in turn, so none is granted again as
/// soon as its cooldown is over.
const LISTED: u32 = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlotState {
    Free,
    /// Granted, but the pod's network is not yet known to be set up.
    Reserved,
    Assigned,
    /// Released. Other nodes may still send packets for the old pod.
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
    pub address: IpAddr,
    pub state: SlotState,
    /// When it entered this state.
    pub since: Mono,
    /// When a pod last left it, if one ever did. The address that was free longest is granted first.
    pub released: Option<Mono>,
    pub holder: Option<Box<Holder>>,
    /// The host keeps it from pods. It is not granted as long as that lasts.
    pub claim: Option<HostClaim>,
}

/// EC2 does not list a block that we hold. One list is not enough to remove it: the block is not used until EC2 lists it
/// again. It is removed once two lists have not shown it and no pod is on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Doubt {
    pub since: Mono,
    /// A second list has not shown it either. If pods are still on it, they keep it, but it no longer fills a slot.
    pub confirmed: bool,
}

impl Doubt {
    pub(crate) const fn new(now: Mono) -> Self {
        Self {
            since: now,
            confirmed: false,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub net: IpNet,
    /// When EC2 assigned it, or when we first saw it.
    pub since: Mono,
    pub doubt: Option<Doubt>,
    /// EC2 was asked to unassign it.
    pub releasing: bool,
    /// The listed addresses, in ascending order.
    pub slots: Vec<Slot>,
    pub counts: Counts,
}

/// Addresses by the state that people are shown. In a block that is in doubt or being released, that state replaces the
/// states of its addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub free: u32,
    pub reserved: u32,
    pub assigned: u32,
    pub cooling: u32,
    pub quarantined: u32,
    pub releasing: u32,
    /// Addresses with a sandbox, whatever the state of their block.
    pub held: u32,
    /// Addresses in cooldown, whatever the state of their block.
    pub resting: u32,
    /// Addresses that the host keeps from pods, whatever their state.
    pub claimed: u32,
    /// Usable prefixes, and how many of them are wholly free.
    pub prefixes: u32,
    pub free_prefixes: u32,
}

impl Counts {
    /// Addresses that serve pods or could.
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
        self.claimed += other.claimed;
        self.prefixes += other.prefixes;
        self.free_prefixes += other.free_prefixes;
    }
}

impl Block {
    pub(crate) fn new(net: IpNet, now: Mono) -> Self {
        let listed = Unit::of(&net).size().min(LISTED);
        let slots = (0..listed).map(|n| Slot::free(nth(net, n), now)).collect();
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

    pub(crate) fn is_prefix(&self) -> bool {
        Unit::of(&self.net) != Unit::Address
    }

    /// The number of addresses in it.
    pub(crate) fn size(&self) -> u32 {
        Unit::of(&self.net).size()
    }

    /// How many pods it can have. If EC2 has taken it back, only those that are on it.
    pub(crate) fn capacity(&self) -> u32 {
        if self.fills_a_slot() {
            self.size()
        } else {
            self.counts.held
        }
    }

    /// A listed address.
    pub(crate) fn slot(&self, address: IpAddr) -> Option<&Slot> {
        let at = self
            .slots
            .binary_search_by_key(&address, |slot| slot.address);
        self.slots.get(at.ok()?)
    }

    /// Any address of the block. It is added to the list if it is not there.
    pub(crate) fn slot_mut(&mut self, address: IpAddr) -> Option<&mut Slot> {
        if !self.net.contains(&address) {
            return None;
        }
        let found = self
            .slots
            .binary_search_by_key(&address, |slot| slot.address);
        let at = found.unwrap_or_else(|at| {
            self.slots.insert(at, Slot::free(address, self.since));
            at
        });
        self.slots.get_mut(at)
    }

    /// The free address to grant next, and when a pod last left it: the listed address that was free longest, else the
    /// first that is not listed.
    pub(crate) fn pick(&self) -> Option<(Option<Mono>, IpAddr)> {
        let free = self
            .slots
            .iter()
            .filter(|slot| slot.state == SlotState::Free && slot.claim.is_none());
        let rested = free.map(|slot| (slot.released, slot.address)).min();
        rested.or_else(|| Some((None, self.unlisted()?)))
    }

    fn unlisted(&self) -> Option<IpAddr> {
        let mut next = (0..self.size()).map(|n| nth(self.net, n));
        let mut listed = self.slots.iter().map(|slot| slot.address);
        next.find(|address| listed.next() != Some(*address))
    }

    /// Whether EC2 counts it as one of the ENI's addresses, as far as we know.
    pub(crate) fn fills_a_slot(&self) -> bool {
        self.doubt.is_none_or(|doubt| !doubt.confirmed)
    }

    /// Whether its free addresses can be assigned.
    pub(crate) const fn usable(&self) -> bool {
        self.doubt.is_none() && !self.releasing
    }

    /// Usable, and every address in it is free. A block that the host claims is not: it is not given back.
    pub(crate) const fn wholly_free(&self) -> bool {
        self.usable() && self.counts.claimed == 0 && self.counts.free == self.counts.total()
    }

    /// No pod and no cooldown is on it.
    pub(crate) const fn idle(&self) -> bool {
        self.counts.held == 0 && self.counts.resting == 0
    }

    pub(crate) fn recount(&mut self) {
        let listed = u32::try_from(self.slots.len()).unwrap_or(u32::MAX);
        let unlisted = self.size().saturating_sub(listed);
        let mut counts = Counts::default();
        *match () {
            () if self.releasing => &mut counts.releasing,
            () if self.doubt.is_some() => &mut counts.quarantined,
            () => &mut counts.free,
        } = unlisted;
        for slot in &self.slots {
            counts.held += u32::from(slot.holder.is_some());
            counts.resting += u32::from(matches!(slot.state, SlotState::Cooling { .. }));
            counts.claimed += u32::from(slot.claim.is_some());
            *match slot.state {
                _ if self.releasing => &mut counts.releasing,
                _ if self.doubt.is_some() => &mut counts.quarantined,
                SlotState::Free if slot.claim.is_some() => &mut counts.quarantined,
                SlotState::Free => &mut counts.free,
                SlotState::Reserved => &mut counts.reserved,
                SlotState::Assigned => &mut counts.assigned,
                SlotState::Cooling { .. } => &mut counts.cooling,
            } += 1;
        }
        if self.is_prefix() && self.usable() {
            counts.prefixes = 1;
            counts.free_prefixes = u32::from(counts.claimed == 0 && counts.free == counts.total());
        }
        self.counts = counts;
    }
}

impl Slot {
    const fn free(address: IpAddr, since: Mono) -> Self {
        Self {
            address,
            state: SlotState::Free,
            since,
            released: None,
            holder: None,
            claim: None,
        }
    }
}

/// Address `n` of a block. EC2 routes a prefix as a whole, so its first and last address can serve pods too.
fn nth(net: IpNet, n: u32) -> IpAddr {
    match net {
        IpNet::V4(net) => Ipv4Addr::from(u32::from(net.network()).wrapping_add(n)).into(),
        IpNet::V6(net) => Ipv6Addr::from(u128::from(net.network()) + u128::from(n)).into(),
    }
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
        assert_eq!(block.slots[0].address, IpAddr::from([10, 0, 0, 16]));
        assert_eq!(block.slots[15].address, IpAddr::from([10, 0, 0, 31]));
    }

    #[test]
    fn a_removed_block_belongs_only_to_its_current_pods() {
        let mut block = Block::new("10.0.0.16/28".parse().unwrap(), Mono::ZERO);
        block.slots[3].holder = Some(Box::new(Holder {
            sandbox: Sandbox {
                network: "net".into(),
                container_id: "pod".into(),
                ifname: "eth0".into(),
            },
            pod: Pod::default(),
        }));
        block.doubt = Some(Doubt::new(Mono::ZERO));
        block.recount();
        assert_eq!((block.fills_a_slot(), block.capacity()), (true, 16));
        block.doubt.as_mut().unwrap().confirmed = true;
        assert_eq!((block.fills_a_slot(), block.capacity()), (false, 1));
    }

    #[test]
    fn a_block_in_doubt_keeps_its_addresses() {
        let mut block = Block::new("10.0.0.16/32".parse().unwrap(), Mono::ZERO);
        block.slots[0].state = SlotState::Cooling { until: Mono::ZERO };
        block.doubt = Some(Doubt::new(Mono::ZERO));
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

    #[test]
    fn an_ipv6_prefix_lists_addresses_as_needed() {
        let net: IpNet = "2600:1f14:0:1:2::/80".parse().unwrap();
        let mut block = Block::new(net, Mono::ZERO);
        assert_eq!((block.slots.len(), block.counts.free), (16, 1 << 16));
        for n in 0..40 {
            let (_, address) = block.pick().unwrap();
            assert_eq!(address, nth(net, n));
            block.slot_mut(address).unwrap().state = SlotState::Assigned;
            block.recount();
        }
        assert_eq!((block.slots.len(), block.counts.assigned), (40, 40));
        assert_eq!(block.counts.total(), 1 << 16);

        let far = "2600:1f14:0:1:2:ffff::1".parse().unwrap();
        block.slot_mut(far).unwrap().state = SlotState::Assigned;
        assert_eq!(
            block.pick().unwrap().1,
            nth(net, 40),
            "gaps are filled in order"
        );
        assert!(
            block
                .slot_mut("2600:1f14:0:1:3::".parse().unwrap())
                .is_none()
        );
    }
}
