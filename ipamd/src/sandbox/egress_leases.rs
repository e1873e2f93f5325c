//! Which pod has which address for destinations of the other family. These addresses mean nothing outside the node, so no
//! planner is needed: the lowest address after the last one that is free.
//!
//! An address belongs to a sandbox from the beginning of its ADD until its DEL, or until the ADD fails. What a restart finds in
//! records is held again. What the kernel has and no record explains belongs to others, such as a pod of the AWS VPC CNI, and is
//! reserved until the kernel does not have it any more. Pure, except that a [`Lease`] that is dropped ends.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex},
};

use datapath::constants::{EGRESS_V4, EGRESS_V6};
use nettypes::Family;

/// The positions in the network that pods get. The first two are the network and the AWS VPC CNI's gateway, the last one is
/// the broadcast address.
const FIRST: u16 = 2;
/// The number of addresses.
pub const CAPACITY: u16 = 1020;

/// All addresses are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// The bookkeeping of one node. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct EgressLeases {
    /// The family of the addresses, which is not that of pods; `None` if pods have none.
    other: Option<Family>,
    used: Arc<Mutex<Used>>,
}

#[derive(Debug, Default)]
struct Used {
    addresses: BTreeSet<IpAddr>,
    /// Those of others.
    reserved: BTreeSet<IpAddr>,
    /// Where to look first: an address is used again as late as possible.
    next: u16,
}

/// An address that its holder has until this is dropped.
#[derive(Debug)]
pub struct Lease {
    of: EgressLeases,
    /// Until it is kept.
    address: Option<IpAddr>,
}

impl EgressLeases {
    /// For pods that reach destinations of this `other` family, if any. `held`: the addresses of pods that exist.
    #[must_use]
    pub fn new(other: Option<Family>, held: impl IntoIterator<Item = IpAddr>) -> Self {
        let addresses: BTreeSet<IpAddr> = held.into_iter().collect();
        let last = addresses.iter().filter_map(|address| position(*address));
        let next = last.max().map_or(0, |last| (last + 1) % CAPACITY);
        Self {
            other,
            used: Arc::new(Mutex::new(Used {
                addresses,
                reserved: BTreeSet::new(),
                next,
            })),
        }
    }

    /// An address for a new pod, if pods have one.
    ///
    /// # Errors
    /// [`Full`].
    pub fn lease(&self) -> Result<Option<Lease>, Full> {
        let Some(other) = self.other else {
            return Ok(None);
        };
        let mut used = self.used.lock().expect("no holder panics");
        let after = used.next;
        let order = (0..CAPACITY).map(|n| (after + n) % CAPACITY);
        let free = |n: &u16| {
            let address = address(other, *n);
            !used.addresses.contains(&address) && !used.reserved.contains(&address)
        };
        let found = order.into_iter().find(free).ok_or(Full)?;
        let address = address(other, found);
        used.next = (found + 1) % CAPACITY;
        used.addresses.insert(address);
        drop(used);
        Ok(Some(Lease {
            of: self.clone(),
            address: Some(address),
        }))
    }

    /// No pod gets those of `in_use` that no pod of ours has: others have them. Ends what was reserved before, and returns what
    /// is not in use any more.
    pub fn reserve(&self, in_use: &BTreeSet<IpAddr>) -> BTreeSet<IpAddr> {
        let mut used = self.used.lock().expect("no holder panics");
        let reserved = in_use - &used.addresses;
        let before = std::mem::replace(&mut used.reserved, reserved);
        drop(used);
        &before - in_use
    }

    /// Whether others have any.
    #[must_use]
    pub fn has_reserved(&self) -> bool {
        !self
            .used
            .lock()
            .expect("no holder panics")
            .reserved
            .is_empty()
    }

    /// The pod with this address is gone.
    pub fn end(&self, address: IpAddr) {
        let mut used = self.used.lock().expect("no holder panics");
        used.addresses.remove(&address);
    }

    /// How many are in use.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.used.lock().expect("no holder panics").addresses.len()
    }
}

impl Lease {
    #[must_use]
    pub const fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The pod exists: the address is its own until [`EgressLeases::end`].
    pub fn keep(mut self) {
        self.address = None;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(address) = self.address.take() {
            self.of.end(address);
        }
    }
}

fn address(family: Family, position: u16) -> IpAddr {
    let offset = FIRST + position;
    match family {
        Family::V4 => Ipv4Addr::from(u32::from(EGRESS_V4.network()) + u32::from(offset)).into(),
        Family::V6 => Ipv6Addr::from(u128::from(EGRESS_V6.network()) + u128::from(offset)).into(),
    }
}

fn position(address: IpAddr) -> Option<u16> {
    let offset = match address {
        IpAddr::V4(ip) => u16::try_from(u32::from(ip).checked_sub(EGRESS_V4.network().into())?),
        IpAddr::V6(ip) => u16::try_from(u128::from(ip).checked_sub(EGRESS_V6.network().into())?),
    };
    offset.ok()?.checked_sub(FIRST)
}

#[cfg(test)]
mod tests;
