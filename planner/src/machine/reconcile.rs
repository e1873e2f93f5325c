//! Compares EC2's lists with the planner's state.
//!
//! A list is not the truth. It may be older than our latest calls, miss what is new and show what is gone. So a list may
//! add something or put it in doubt. It removes only what two lists, some time apart, have not shown and no pod uses
//! (ec2-and-faults §7 rows 16, 18, 19; I5).

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

/// The maximum lag of EC2's lists behind its own answers.
pub(super) const LAG: Duration = Duration::from_secs(10);
/// How far apart two lists must be to count as two.
const GRACE: Duration = Duration::from_secs(30);
/// If EC2 does not find an ENI that is younger than this, it may only be late.
pub(super) const YOUNG: Duration = Duration::from_secs(60);
/// The next list while an attachment is still changing.
const UNSETTLED: Duration = Duration::from_secs(3);
/// An attachment that is still changing after this time is given up (ec2-and-faults §7 row 5).
const ATTACH_LIMIT: Duration = Duration::from_secs(60);
/// The next list while something is in doubt: the first wait, which doubles up to the longest.
const CONFIRM: Duration = Duration::from_secs(30);
const CONFIRM_CAP: Duration = Duration::from_secs(600);

impl Planner {
    /// A list that came without a command. Its age is unknown.
    pub(super) fn inventory(&mut self, list: &[Observed]) {
        self.reconcile(list, self.now - LAG, false);
    }

    pub(super) fn described(&mut self, list: &[Observed], sent: Mono) {
        self.describe.op = None;
        self.describe.failures = 0;
        self.reconcile(list, sent, true);
    }

    /// `complete`: the list has what is attached here and also what only carries our tag.
    fn reconcile(&mut self, list: &[Observed], sent: Mono, complete: bool) {
        self.inventoried = true;
        self.unmanaged.clear();
        let mut seen = BTreeSet::new();
        // Attached ENIs first: whether an unattached one is wanted depends on them.
        let (bound, loose): (Vec<_>, Vec<_>) = list
            .iter()
            .partition(|observed| observed.attached.is_some());
        for observed in bound.into_iter().chain(loose) {
            seen.extend(self.match_up(observed, sent));
        }
        for key in self.pool.keys() {
            // An ENI that waits to be deleted is unattached, so a list of attached ENIs says nothing about it.
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
                // If the answer to a create was lost, the call is repeated with the same token and returns the same ENI.
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
        let attachment = observed.attached.as_ref();
        let ours =
            attachment.is_none_or(|attachment| attachment.card == self.instance.default_card);
        let primary = attachment.is_some_and(|attachment| ours && attachment.device == 0);
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
        } else if let Some(attachment) = attachment {
            self.unmanaged
                .insert(observed.eni.clone(), (attachment.card, attachment.device));
        }
        known
    }

    /// A managed ENI that we did not know.
    fn adopt(&mut self, observed: &Observed) -> Option<Key> {
        let now = self.now;
        if self.pool.was_deleted(&observed.eni, now) {
            return None;
        }
        let card = self.instance.default_card;
        let key = match &observed.attached {
            Some(attachment) => {
                let phase = if attachment.settled {
                    Phase::Configuring
                } else {
                    Phase::Unattached
                };
                let mut eni = Eni::observed(observed, card, phase, now);
                eni.suspect = (!attachment.settled).then_some(now);
                self.pool.insert(eni)
            }
            None if !observed.tagged_ours || !self.config.provisioning => return None,
            // A create in progress may have just made it. Wait for the answer, or for the list after it.
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

    /// Whether a create is waiting for its answer.
    fn creating(&self) -> bool {
        self.pool
            .enis()
            .any(|eni| eni.phase == Phase::Creating && eni.op.is_some())
    }

    /// An unattached ENI with our tag. A Create whose answer was lost made it, or a previous process left it. It is attached
    /// if the pool needs one, else deleted (ec2-and-faults §7 rows 1, 2).
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

    /// An ENI that EC2 and the planner both know.
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
            // Our last step is newer than the list.
            _ if fresh => {}
            (Some(attachment), Phase::Unattached) if eni.op.is_none() => {
                eni.learn(observed, card);
                if attachment.settled {
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

    /// An ENI that was known only from its pods' records gets its details.
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
        // The previous process may have given addresses back just before it ended. An old list still shows them.
        let believed = eni.and_then(|eni| eni.restored).map(|at| at + LAG);
        let too_old = believed.filter(|at| sent < *at);
        for net in &listed {
            let hidden = self.pool.returned_until(key, *net, now);
            match hidden.or(too_old.filter(|_| strange.contains(net))) {
                None => self.pool.add_block(key, *net, now),
                // Either the list is old, or a lost Assign got the same address again. A later list decides.
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
        // A list shows the effect of a lost Unassign only after a while. Until then its blocks stay in doubt.
        let settled = self.describe.confirm.is_none_or(|at| at <= sent);
        let (mut gone, mut doubted) = (Vec::new(), false);
        for net in nets {
            let shown = listed.contains(&net);
            let drop = eni.with_block(net, |block| {
                if shown {
                    block.doubt = None;
                    // The Unassign that failed had no effect.
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
            // A new doubt starts with the shortest interval again.
            self.describe.unsettled = 0;
        }
        for net in gone {
            self.pool.drop_block(key, net, now);
        }
    }

    /// EC2 does not list an ENI as ours and attached. Its pods keep their addresses, and no new pod gets one. In the end it
    /// is forgotten. It is deleted only if EC2 lists it as unattached and with our tag: otherwise it may by now belong to
    /// another node (I5).
    fn not_listed(&mut self, key: Key, deletable: bool) {
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        match eni.phase {
            // A new ENI may only be late. The delete is repeated until EC2 must know whether the ENI exists.
            Phase::Deleting if now < eni.since + YOUNG => return,
            Phase::Deleting if eni.op.is_none() => return self.pool.remove(key, now),
            Phase::Detaching if eni.op.is_none() => return self.detached(key),
            Phase::Creating | Phase::Draining | Phase::Detaching | Phase::Deleting => return,
            Phase::Unattached | Phase::Configuring | Phase::Ready => {}
        }
        let (since, reads) = match eni.trust {
            Trust::Missing { since, reads } => (since, reads),
            _ => {
                // A new doubt starts with the shortest interval again.
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

    /// Requests another list if this one left something in doubt, at growing intervals.
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

    /// An ENI without its link is useless, whatever EC2 says. No new pod gets an address of it until the host has brought it
    /// up again. EC2 is asked whether it is still attached, at once and again after [`LAG`].
    pub(super) fn link_gone(&mut self, mac: Mac) {
        let now = self.now;
        // If the link is expected, or is known to be gone, this is nothing new and no reason to ask EC2 again.
        let served = |eni: &Eni| {
            eni.mac == Some(mac)
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

/// The blocks that EC2 lists on an ENI, of the pods' family.
pub(super) fn nets(observed: &Observed, family: Family) -> impl Iterator<Item = IpNet> {
    let ours = move |net: &IpNet| matches!(net, IpNet::V4(_)) == (family == Family::V4);
    let singles = observed
        .addresses
        .iter()
        .map(|address| IpNet::from(*address));
    let prefixes = observed.prefixes.iter().map(IpNet::trunc);
    singles.chain(prefixes).filter(ours)
}
