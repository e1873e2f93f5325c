//! EC2's lists against our books.
//!
//! A list is a witness, not the truth: it may be older than what we did since it was asked for, miss what is new and
//! show what is gone. So it may add, and it may put in doubt; it removes only what it has twice not shown, some time
//! apart, and what no pod uses (ec2-and-faults §7 rows 16, 18, 19; I5).

use std::{collections::BTreeSet, time::Duration};

use ipnet::IpNet;

use super::Planner;
use crate::{
    Family, Mac, Mono,
    event::Observed,
    pool::{
        Key,
        block::Doubt,
        eni::{Eni, Termination, Trust},
    },
    snapshot::Phase,
};

/// EC2's lists may lag this far behind its own answers.
pub(super) const LAG: Duration = Duration::from_secs(10);
/// How far apart two lists must be to count as two witnesses.
const GRACE: Duration = Duration::from_secs(30);
/// For so long after we first knew of it, an ENI that EC2 does not find may yet come to light.
pub(super) const YOUNG: Duration = Duration::from_secs(60);
/// Reading again while an attachment is neither here nor there.
const UNSETTLED: Duration = Duration::from_secs(3);
/// An attachment that has been neither for so long is given up (ec2-and-faults §7 row 5).
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// Reading again while something is in doubt: the first wait, doubling to the longest.
const CONFIRM: Duration = Duration::from_secs(30);
const CONFIRM_CAP: Duration = Duration::from_secs(600);

impl Planner {
    /// The list that came unasked: how old it is, nobody said.
    pub(super) fn inventory(&mut self, list: &[Observed]) {
        self.reconcile(list, self.now - LAG, false);
    }

    pub(super) fn described(&mut self, list: &[Observed], sent: Mono) {
        self.describe.op = None;
        self.describe.failures = 0;
        self.reconcile(list, sent, true);
    }

    /// `complete`: the list has what is attached here and what only carries our tag, not just the former.
    fn reconcile(&mut self, list: &[Observed], sent: Mono, complete: bool) {
        self.inventoried = true;
        self.unmanaged.clear();
        let mut seen = BTreeSet::new();
        // Attached ones first: whether a loose one is wanted depends on what is attached.
        let (bound, loose): (Vec<_>, Vec<_>) = list
            .iter()
            .partition(|observed| observed.attached.is_some());
        for observed in bound.into_iter().chain(loose) {
            seen.extend(self.match_up(observed, sent));
        }
        for key in self.pool.keys() {
            // What waits to be deleted is attached to nothing: a list of what is attached says nothing about it.
            let covers = |eni: &Eni| complete || eni.phase != Phase::Deleting;
            let old = self
                .pool
                .get(key)
                .is_some_and(|eni| eni.id.is_some() && eni.since <= sent && covers(eni));
            if old && !seen.contains(&key) {
                self.not_listed(key, false);
            }
            if let Some(eni) = self
                .pool
                .get_mut(key)
                .filter(|eni| eni.suspect.is_some_and(|since| since <= sent))
            {
                // For an ENI whose creation got lost: the same token asks again, and gets the same ENI if there is one.
                eni.suspect = None;
            }
        }
        self.follow_up();
        let describe = &mut self.describe;
        describe.confirm = describe.confirm.filter(|at| *at > sent);
        describe.latest = describe.latest.filter(|at| *at > sent);
        for at in [describe.confirm, describe.latest].into_iter().flatten() {
            self.describe_within(at.since(self.now));
        }
    }

    fn match_up(&mut self, observed: &Observed, sent: Mono) -> Option<Key> {
        let known = self.pool.key_of(&observed.eni);
        let bond = observed.attached.as_ref();
        let ours = bond.is_none_or(|bond| bond.card == self.instance.default_card);
        let primary = bond.is_some_and(|bond| ours && bond.device == 0);
        if (observed.managed && ours) || primary {
            return match known {
                Some(key) => {
                    self.compare(key, observed, sent);
                    Some(key)
                }
                None => self.adopt(observed),
            };
        }
        if let Some(eni) = known.and_then(|key| self.pool.get_mut(key)) {
            eni.trust = Trust::Unmanaged;
        } else if let Some(bond) = bond {
            self.unmanaged
                .insert(observed.eni.clone(), (bond.card, bond.device));
        }
        known
    }

    /// An ENI that is ours and that we did not know.
    fn adopt(&mut self, observed: &Observed) -> Option<Key> {
        let now = self.now;
        if self.pool.was_deleted(&observed.eni, now) {
            return None;
        }
        let card = self.instance.default_card;
        let key = match &observed.attached {
            Some(bond) => {
                let phase = if bond.settled {
                    Phase::Configuring
                } else {
                    Phase::Unattached
                };
                let mut eni = Eni::observed(observed, card, phase, now);
                eni.suspect = (!bond.settled).then_some(now);
                self.pool.insert(eni)
            }
            None if !observed.tagged_ours || !self.config.provisioning => return None,
            // It may be what a create under way has just made: its answer will say, or it is lost and looked for.
            None if self.creating() => {
                self.describe_after(UNSETTLED);
                return None;
            }
            None => self.adopt_unattached(observed),
        };
        for net in nets(observed, self.config.family) {
            self.pool.add_block(key, net, now);
        }
        Some(key)
    }

    /// Whether EC2 has a create of ours whose answer is still awaited.
    fn creating(&self) -> bool {
        self.pool
            .enis()
            .any(|eni| eni.phase == Phase::Creating && eni.op.is_some())
    }

    /// A detached ENI with our tag: the fruit of a Create whose answer got lost, or the rest of a former life. It is
    /// attached if the pool wants one, else deleted (ec2-and-faults §7 rows 1, 2).
    fn adopt_unattached(&mut self, observed: &Observed) -> Key {
        let now = self.now;
        let card = self.instance.default_card;
        let lost = self
            .pool
            .iter()
            .find(|(_, eni)| eni.phase == Phase::Creating && eni.suspect.is_some());
        if let Some(key) = lost.map(|(key, _)| key) {
            if let Some(eni) = self.pool.get_mut(key) {
                eni.intent = None;
                eni.suspect = None;
                eni.learn(observed, card);
                eni.since = now;
                eni.enter(Phase::Unattached, now);
            }
            return key;
        }
        let wanted =
            self.eni_room() > 0 && self.policy.short(&self.stock(), &self.flow()).addresses > 0;
        let phase = if wanted {
            Phase::Unattached
        } else {
            Phase::Deleting
        };
        let mut eni = Eni::observed(observed, card, phase, now);
        eni.card = card;
        self.pool.insert(eni)
    }

    /// An ENI that both sides know.
    fn compare(&mut self, key: Key, observed: &Observed, sent: Mono) {
        let now = self.now;
        let card = self.instance.default_card;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let fresh = eni.phase_since > sent;
        let remembered = eni.address.is_none();
        if observed.attached.is_some() || eni.phase == Phase::Unattached {
            eni.trust = Trust::Sound;
        }
        match (&observed.attached, eni.phase) {
            // Our step is younger than the list.
            _ if fresh => {}
            (Some(bond), Phase::Unattached) if eni.op.is_none() => {
                eni.learn(observed, card);
                if bond.settled {
                    eni.termination = Termination::Wanted {
                        op: None,
                        tries: 0,
                        at: now,
                    };
                    eni.enter(Phase::Configuring, now);
                } else if now >= eni.phase_since + ATTACH_LIMIT {
                    eni.never_came_up = true;
                    eni.enter(Phase::Detaching, now);
                } else {
                    eni.suspect = Some(now);
                }
            }
            (Some(_), Phase::Deleting) if eni.op.is_none() => {
                eni.learn(observed, card);
                eni.enter(Phase::Detaching, now);
            }
            (Some(_), Phase::Configuring | Phase::Ready) => eni.learn(observed, card),
            (None, Phase::Detaching) if eni.op.is_none() => self.detached(key),
            (None, Phase::Configuring | Phase::Ready) => {
                return self.not_listed(key, observed.tagged_ours);
            }
            _ => {}
        }
        if remembered {
            self.complete(key, observed);
        }
        if self.pool.get(key).is_some_and(|eni| !eni.leaving()) {
            self.compare_blocks(key, observed, sent);
        }
    }

    /// An ENI that only its pods remembered now has a face.
    fn complete(&mut self, key: Key, observed: &Observed) {
        let card = self.instance.default_card;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.learn(observed, card);
        }
        let index = self.pool.get(key).and_then(|eni| self.pool.index_for(eni));
        if let Some(eni) = self.pool.get_mut(key) {
            eni.index = index;
        }
    }

    fn compare_blocks(&mut self, key: Key, observed: &Observed, sent: Mono) {
        let now = self.now;
        let listed: BTreeSet<IpNet> = nets(observed, self.config.family).collect();
        let eni = self.pool.get(key);
        let known = |net: &IpNet| eni.is_some_and(|eni| eni.blocks.contains_key(net));
        let strange: BTreeSet<IpNet> = listed.iter().filter(|net| !known(net)).copied().collect();
        // A daemon that gave addresses back and died left no note of it; a list of those days still shows them.
        let believed = eni.and_then(|eni| eni.restored).map(|at| at + LAG);
        let too_old = believed.filter(|at| sent < *at);
        for net in &listed {
            let hidden = self.pool.returned_until(key, *net, now);
            match hidden.or(too_old.filter(|_| strange.contains(net))) {
                None => self.pool.add_block(key, *net, now),
                // An old list, or a lost Assign that was given the same again: later lists tell.
                until => self.describe.confirm = self.describe.confirm.max(until),
            }
        }
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let (unasked, nets) = (
            eni.unassign.is_none(),
            eni.blocks.keys().copied().collect::<Vec<_>>(),
        );
        // What a lost Unassign did, a list shows only after a while; until then its blocks are neither ours nor gone.
        let settled = self.describe.confirm.is_none_or(|at| at <= sent);
        let (mut gone, mut doubted) = (Vec::new(), false);
        for net in nets {
            let shown = listed.contains(&net);
            let drop = eni.with_block(net, |block| {
                if shown {
                    block.doubt = None;
                    // The Unassign that failed did nothing.
                    block.releasing &= !(unasked && settled);
                    return false;
                }
                if block.since + LAG > sent {
                    return false;
                }
                doubted |= block.doubt.is_none();
                let doubt = block.doubt.get_or_insert(Doubt::new(now));
                doubt.confirmed |= now >= doubt.since + GRACE;
                let confirmed = doubt.confirmed;
                block.idle() && ((block.releasing && unasked) || confirmed)
            });
            gone.extend((drop == Some(true)).then_some(net));
        }
        if doubted {
            // As with ENIs: a new doubt is settled soon, whatever the last one's intervals have grown to.
            self.describe.unsettled = 0;
        }
        for net in gone {
            self.pool.drop_block(key, net, now);
        }
    }

    /// EC2 does not show an ENI as ours and attached. Its pods keep their addresses, nobody new gets one. In the end it
    /// is forgotten; deleted only if EC2 still shows it, detached and with our tag: what is not shown may by now be
    /// another node's (I5).
    fn not_listed(&mut self, key: Key, deletable: bool) {
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        match eni.phase {
            // A young one may only be late to show: it is deleted again until EC2 must know whether it is there.
            Phase::Deleting if now < eni.since + YOUNG => return,
            Phase::Deleting if eni.op.is_none() => return self.pool.remove(key, now),
            Phase::Detaching if eni.op.is_none() => return self.detached(key),
            Phase::Creating | Phase::Draining | Phase::Detaching | Phase::Deleting => return,
            Phase::Unattached | Phase::Configuring | Phase::Ready => {}
        }
        let (since, reads) = match eni.trust {
            Trust::Missing { since, reads } => (since, reads),
            _ => {
                // A new doubt: however long the last one has gone on, this one is to be settled soon.
                self.describe.unsettled = 0;
                (now, 0)
            }
        };
        let confirmed = reads >= 1 && now >= since + GRACE;
        eni.trust = Trust::Missing {
            since,
            reads: if confirmed { 2 } else { 1 },
        };
        if confirmed && eni.idle() && !eni.primary {
            eni.attachment = None;
            eni.forget_without_delete = !deletable;
            eni.enter(Phase::Draining, now);
        }
    }

    /// What a list left open is looked at again, at growing intervals.
    fn follow_up(&mut self) {
        if self.pool.enis().any(|eni| eni.suspect.is_some()) {
            self.describe_within(UNSETTLED);
        }
        let quarantined = |eni: &Eni| {
            !eni.leaving()
                && (eni.trust != Trust::Sound
                    || eni.blocks.values().any(|block| block.doubt.is_some()))
        };
        if !self.pool.enis().any(quarantined) {
            self.describe.unsettled = 0;
            return;
        }
        let delay = CONFIRM
            .saturating_mul(1 << self.describe.unsettled.min(16))
            .min(CONFIRM_CAP);
        self.describe.unsettled += 1;
        self.describe_within(delay);
    }

    /// Nobody can use an ENI without its link, whatever EC2 says: no new pod gets an address of it until the host has
    /// brought it up again. Whether it will ever come back EC2 knows, and may say so only after a while.
    pub(super) fn link_gone(&mut self, mac: Mac) {
        let now = self.now;
        // Of one whose link is still to come, or known to be gone, this is no news, and no reason to ask EC2 again.
        let served = |eni: &Eni| {
            eni.mac == mac
                && eni.id.is_some()
                && (eni.phase == Phase::Ready || eni.phase == Phase::Configuring && eni.carries)
        };
        let found = self.pool.iter().find(|(_, eni)| served(eni));
        let Some(key) = found.map(|(key, _)| key) else {
            return;
        };
        if let Some(eni) = self.pool.get_mut(key) {
            eni.carries = false;
            if eni.phase == Phase::Ready {
                eni.enter(Phase::Configuring, now);
            }
        }
        self.describe.unsettled = 0;
        self.describe_after(Duration::ZERO);
        self.describe_after(LAG);
    }
}

/// What EC2 lists on an ENI, as blocks, as far as it is of the pods' family.
pub(super) fn nets(observed: &Observed, family: Family) -> impl Iterator<Item = IpNet> {
    let ours = move |net: &IpNet| matches!(net, IpNet::V4(_)) == (family == Family::V4);
    let singles = observed
        .addresses
        .iter()
        .map(|address| IpNet::from(*address));
    let prefixes = observed.prefixes.iter().map(IpNet::trunc);
    singles.chain(prefixes).filter(ours)
}
