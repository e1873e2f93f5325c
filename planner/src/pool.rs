//! The pool: all ENIs of this node, their addresses, and which sandbox has which address.
//!
//! Owns I1 (one sandbox per address), the cooldown (I3) and the choice of the address to grant. It must not know why the
//! pool grows or shrinks, and it issues no commands.
//!
//! May use `gate`, `unit` and `snapshot`.

pub(crate) mod block;
pub(crate) mod eni;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;

use crate::{EniId, EniIndex, HostClaim, Mono, Pod, Sandbox, snapshot::Phase};
use block::{Counts, Holder, SlotState};
use eni::Eni;

/// The planner's own name for an ENI, which has no id until EC2 has created it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u32);

/// EC2's lists may show for a while what was just unassigned (eventual consistency). Upstream waits as long.
const STALE_LISTS: Duration = Duration::from_secs(60);
/// EC2 never reuses ENI ids, so this may be long.
const STALE_ENIS: Duration = Duration::from_secs(600);

/// How long an address is left alone if another ENI's pod uses it.
const ASIDE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub key: Key,
    pub address: IpAddr,
}

/// When a pod left an address, and until when the address is not granted again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rest {
    pub released: Mono,
    pub until: Mono,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Pool {
    enis: BTreeMap<Key, Eni>,
    holders: BTreeMap<Sandbox, Place>,
    cooling: BTreeSet<(Mono, Key, IpAddr)>,
    /// Addresses in cooldown that are on no known ENI. If they come back, the cooldown continues.
    resting: BTreeMap<IpAddr, Rest>,
    /// Blocks that were given back to EC2, and until when a list that shows them is stale.
    returned: BTreeMap<(Key, IpNet), Mono>,
    /// Deleted ENIs, and until when a list that shows them is stale.
    deleted: BTreeMap<EniId, Mono>,
    /// What the host keeps from pods.
    claims: Vec<(IpNet, HostClaim)>,
    next_key: u32,
}

impl Pool {
    pub(crate) fn insert(&mut self, eni: Eni) -> Key {
        let key = Key(self.next_key);
        self.next_key += 1;
        self.enis.insert(key, eni);
        key
    }

    /// Forgets an ENI. The caller makes sure that no sandbox is on it. Cooldowns of its addresses continue.
    pub(crate) fn remove(&mut self, key: Key, now: Mono) {
        let Some(eni) = self.enis.remove(&key) else {
            return;
        };
        if let Some(id) = eni.id.clone().filter(|_| eni.phase == Phase::Deleting) {
            self.deleted.insert(id, now + STALE_ENIS);
        }
        self.returned.retain(|(owner, _), _| *owner != key);
        let orphans: Vec<_> = self
            .cooling
            .iter()
            .filter(|(_, owner, _)| *owner == key)
            .copied()
            .collect();
        for orphan in orphans {
            self.cooling.remove(&orphan);
            let (until, _, address) = orphan;
            let released = eni
                .slot(address)
                .and_then(|slot| slot.released)
                .unwrap_or(now);
            self.resting.insert(address, Rest { released, until });
        }
        self.holders.retain(|_, place| place.key != key);
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Eni> {
        self.enis.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Eni> {
        self.enis.get_mut(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Eni)> {
        self.enis.iter().map(|(key, eni)| (*key, eni))
    }

    pub(crate) fn enis(&self) -> impl Iterator<Item = &Eni> {
        self.enis.values()
    }

    pub(crate) fn keys(&self) -> Vec<Key> {
        self.enis.keys().copied().collect()
    }

    pub(crate) fn key_of(&self, id: &EniId) -> Option<Key> {
        self.iter()
            .find(|(_, eni)| eni.id.as_ref() == Some(id))
            .map(|(key, _)| key)
    }

    pub(crate) fn was_deleted(&self, id: &EniId, now: Mono) -> bool {
        self.deleted.get(id).is_some_and(|until| now < *until)
    }

    /// Until when lists that show this block on this ENI are stale. `None` if they are not.
    pub(crate) fn returned_until(&self, key: Key, net: IpNet, now: Mono) -> Option<Mono> {
        let until = self.returned.get(&(key, net)).copied();
        until.filter(|until| now < *until)
    }

    /// Sandboxes with an address.
    pub(crate) fn held(&self) -> u32 {
        u32::try_from(self.holders.len()).unwrap_or(u32::MAX)
    }

    /// Sandboxes on ENIs that get no more pods.
    pub(crate) fn held_on_closed(&self) -> u32 {
        let closed = self.enis().filter(|eni| eni.closed.is_some());
        closed.map(|eni| eni.counts().held).sum()
    }

    pub(crate) fn place_of(&self, sandbox: &Sandbox) -> Option<Place> {
        self.holders.get(sandbox).copied()
    }

    pub(crate) fn state_of(&self, place: Place) -> Option<SlotState> {
        Some(self.get(place.key)?.slot(place.address)?.state)
    }

    /// Reserves the best free address: from the fullest ENI, so that whole ENIs become free. (Upstream chooses at random,
    /// which spreads pods over all ENIs.) Ties go to the lowest device.
    pub(crate) fn reserve(&mut self, sandbox: &Sandbox, pod: &Pod, now: Mono) -> Option<Place> {
        loop {
            let (key, _) = self
                .iter()
                .filter(|(_, eni)| eni.counts().free > 0 && eni.grantable())
                .min_by_key(|(_, eni)| (std::cmp::Reverse(eni.counts().held), eni.device))?;
            let address = self.get(key)?.pick()?;
            // An address of an IPv6 prefix is listed, and marked, when it is first needed.
            if let Some(claim) = claim_on(&self.claims, address) {
                let eni = self.get_mut(key)?;
                eni.with_slot(address, |slot| slot.claim = Some(claim));
                continue;
            }
            if !self.claimed_elsewhere(key, address) {
                return self.put(key, address, sandbox, pod, SlotState::Reserved, now);
            }
            self.set_aside(key, address, now);
        }
    }

    /// Whether the address has a pod or a cooldown on another ENI. If somebody deletes an ENI, EC2 may assign its addresses
    /// to another ENI of this node while the deleted ENI's pods still use them here (I1, I3).
    fn claimed_elsewhere(&self, key: Key, address: IpAddr) -> bool {
        let claims = |eni: &Eni| {
            eni.slot(address)
                .is_some_and(|slot| slot.state != SlotState::Free)
        };
        self.iter().any(|(other, eni)| other != key && claims(eni))
    }

    /// Keeps a free address from being granted for a while. Then it is checked again.
    fn set_aside(&mut self, key: Key, address: IpAddr, now: Mono) {
        let until = now + ASIDE;
        if let Some(eni) = self.get_mut(key) {
            eni.with_slot(address, |slot| {
                slot.state = SlotState::Cooling { until };
                slot.since = now;
            });
        }
        self.cooling.insert((until, key, address));
    }

    /// Assigns an unused address to a sandbox.
    pub(crate) fn put(
        &mut self,
        key: Key,
        address: IpAddr,
        sandbox: &Sandbox,
        pod: &Pod,
        state: SlotState,
        now: Mono,
    ) -> Option<Place> {
        let holder = Holder {
            sandbox: sandbox.clone(),
            pod: pod.clone(),
        };
        let put = self.get_mut(key)?.with_slot(address, |slot| {
            if slot.holder.is_some() || slot.state != SlotState::Free {
                return false;
            }
            slot.state = state;
            slot.since = now;
            slot.holder = Some(Box::new(holder));
            true
        })?;
        let place = Place { key, address };
        put.then(|| self.holders.insert(sandbox.clone(), place))?;
        Some(place)
    }

    /// Reserved becomes assigned. False if the sandbox holds no reservation.
    pub(crate) fn wired(&mut self, sandbox: &Sandbox, now: Mono) -> bool {
        let Some(place) = self.place_of(sandbox) else {
            return false;
        };
        let wired = self.get_mut(place.key).and_then(|eni| {
            eni.with_slot(place.address, |slot| {
                let reserved = slot.state == SlotState::Reserved;
                if reserved {
                    slot.state = SlotState::Assigned;
                    slot.since = now;
                }
                reserved
            })
        });
        wired == Some(true)
    }

    /// Reserved becomes free. There is no cooldown, because the address was never in use. False if there is no reservation.
    pub(crate) fn unwired(&mut self, sandbox: &Sandbox, now: Mono) -> bool {
        let Some(place) = self.place_of(sandbox) else {
            return false;
        };
        if self.state_of(place) != Some(SlotState::Reserved) {
            return false;
        }
        self.vacate(sandbox, place, SlotState::Free, now);
        true
    }

    /// The sandbox is gone: its address starts its cooldown. False if it had none.
    pub(crate) fn left(&mut self, sandbox: &Sandbox, cooldown: Duration, now: Mono) -> bool {
        let Some(place) = self.place_of(sandbox) else {
            return false;
        };
        let until = now + cooldown;
        self.vacate(sandbox, place, SlotState::Cooling { until }, now);
        self.cooling.insert((until, place.key, place.address));
        self.end_cooldowns(now);
        true
    }

    fn vacate(&mut self, sandbox: &Sandbox, place: Place, state: SlotState, now: Mono) {
        self.holders.remove(sandbox);
        if let Some(eni) = self.get_mut(place.key) {
            eni.with_slot(place.address, |slot| {
                slot.state = state;
                slot.since = now;
                slot.holder = None;
                if state != SlotState::Free {
                    slot.released = Some(now);
                }
            });
        }
    }

    /// Starts the cooldown of an address, on whatever ENI it is. It is remembered if no ENI has the address yet.
    pub(crate) fn rest(&mut self, address: IpAddr, rest: Rest, now: Mono) {
        self.resting.insert(address, rest);
        for key in self.keys() {
            self.settle_resting(key, now);
        }
    }

    /// Adds a block that EC2 assigned. If an address of it was in cooldown elsewhere, the cooldown continues.
    pub(crate) fn add_block(&mut self, key: Key, net: IpNet, now: Mono) {
        self.returned.remove(&(key, net));
        if let Some(eni) = self.get_mut(key) {
            eni.add_block(net, now);
            self.settle_resting(key, now);
            self.mark_claims(key);
        }
    }

    /// What the host keeps from pods. Pods that have such an address keep it; no other pod gets it.
    pub(crate) fn set_claims(&mut self, claims: Vec<(IpNet, HostClaim)>) {
        if self.claims == claims {
            return;
        }
        self.claims = claims;
        for key in self.keys() {
            self.mark_claims(key);
        }
    }

    fn mark_claims(&mut self, key: Key) {
        let claims = std::mem::take(&mut self.claims);
        let nets: Vec<IpNet> = match self.get(key) {
            Some(eni) => eni.blocks.keys().copied().collect(),
            None => Vec::new(),
        };
        for net in nets {
            let Some(eni) = self.get_mut(key) else { break };
            eni.with_block(net, |block| {
                for slot in &mut block.slots {
                    slot.claim = claim_on(&claims, slot.address);
                }
            });
        }
        self.claims = claims;
    }

    fn settle_resting(&mut self, key: Key, now: Mono) {
        self.resting.retain(|_, rest| now < rest.until);
        let Some(eni) = self.enis.get_mut(&key) else {
            return;
        };
        let cooling = &mut self.cooling;
        self.resting.retain(|address, rest| {
            let until = rest.until;
            let rests = eni.with_slot(*address, |slot| {
                let free = slot.state == SlotState::Free;
                if free {
                    slot.state = SlotState::Cooling { until };
                    slot.since = now;
                    slot.released = Some(rest.released);
                }
                free
            });
            if rests == Some(true) {
                cooling.insert((until, key, *address));
            }
            rests.is_none()
        });
    }

    /// Removes a block that was given back to EC2, or that EC2 never had.
    pub(crate) fn drop_block(&mut self, key: Key, net: IpNet, now: Mono) {
        if let Some(eni) = self.get_mut(key) {
            eni.remove_block(&net);
        }
        self.returned.retain(|_, until| now < *until);
        self.returned.insert((key, net), now + STALE_LISTS);
    }

    /// Frees every address whose cooldown is over.
    pub(crate) fn end_cooldowns(&mut self, now: Mono) {
        while let Some((until, key, address)) = self
            .cooling
            .first()
            .copied()
            .filter(|(until, ..)| *until <= now)
        {
            self.cooling.pop_first();
            if let Some(eni) = self.enis.get_mut(&key) {
                eni.with_slot(address, |slot| {
                    if slot.state == (SlotState::Cooling { until }) {
                        slot.state = SlotState::Free;
                        slot.since = now;
                    }
                });
            }
        }
        self.deleted.retain(|_, until| now < *until);
    }

    pub(crate) fn next_cooldown_end(&self) -> Option<Mono> {
        self.cooling.first().map(|(until, ..)| *until)
    }

    /// The sum over all ENIs that may serve pods.
    pub(crate) fn stock(&self) -> Counts {
        let mut counts = Counts::default();
        for eni in self.enis().filter(|eni| eni.grantable()) {
            counts += *eni.counts();
        }
        counts
    }

    /// An index for marks, link groups and chains. The device number is preferred: EC2 still knows it after a restart, and
    /// the link groups of running pods depend on it.
    pub(crate) fn index_for(&self, eni: &Eni) -> Option<EniIndex> {
        if eni.primary {
            return Some(EniIndex::PRIMARY);
        }
        let taken = |index: EniIndex| self.enis().any(|other| other.index == Some(index));
        let wish = eni
            .device
            .filter(|device| eni.card == 0 && *device > 0)
            .and_then(EniIndex::new);
        wish.filter(|index| !taken(*index))
            .or_else(|| EniIndex::secondary().find(|index| !taken(*index)))
    }

    /// Checks that holders and addresses agree (I1).
    #[cfg(test)]
    pub(crate) fn check(&self) {
        for (sandbox, place) in &self.holders {
            let slot = self
                .get(place.key)
                .and_then(|eni| eni.slot(place.address))
                .expect("a holder's address exists");
            assert_eq!(slot.holder.as_ref().map(|h| &h.sandbox), Some(sandbox));
            assert!(matches!(
                slot.state,
                SlotState::Reserved | SlotState::Assigned
            ));
        }
        let mut held = 0;
        let mut seen = BTreeSet::new();
        for eni in self.enis() {
            for slot in eni.blocks.values().flat_map(|block| &block.slots) {
                assert!(
                    seen.insert(slot.address),
                    "{} is in two blocks",
                    slot.address
                );
                held += u32::from(slot.holder.is_some());
            }
        }
        assert_eq!(held, self.held());
    }
}

fn claim_on(claims: &[(IpNet, HostClaim)], address: IpAddr) -> Option<HostClaim> {
    let found = claims.iter().find(|(net, _)| net.contains(&address));
    found.map(|(_, claim)| *claim)
}

#[cfg(test)]
mod tests;
