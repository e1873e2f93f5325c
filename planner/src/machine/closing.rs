//! ENIs that get no more pods: the primary one in custom networking, those whose subnet a tag excludes, and those of
//! another subnet or with other security groups than the node's class has by now.
//!
//! Their pods keep their network. An ENI that this node created is given back when its last pod has left, even if the warm
//! targets could use its addresses. The primary ENI stays, and only its free addresses are given back.

use std::{collections::BTreeSet, time::Duration};

use super::{Planner, shrink::MIN_LIFE};
use crate::{
    Command, Mono, SecurityGroupId, SubnetId,
    gate::Action,
    limits,
    placement::{Closed, Selector},
    pool::{
        Key,
        eni::{Eni, Trust},
    },
    scope::subnets::excluded,
    snapshot::Phase,
};

/// How long an ENI stays closed before something of it is given back: somebody may undo a mistake.
pub(super) const LASTS: Duration = Duration::from_secs(30);

impl Planner {
    /// Closes and reopens ENIs after a change of the class, of a tag or of the ENIs, and adapts the pod limit.
    pub(super) fn renew_closed(&mut self) {
        let now = self.now;
        for key in self.pool.keys() {
            let Some(eni) = self.pool.get(key) else {
                continue;
            };
            let why = self.closed_because(eni);
            if eni.closed.map(|(why, _)| why) == why {
                continue;
            }
            if let Some(eni) = self.pool.get_mut(key) {
                eni.closed = why.map(|why| (why, now));
            }
        }
        self.compare_groups();
        let serves = self.primary_serves();
        if serves != self.primary_served {
            self.primary_served = serves;
            self.limit = limits::pod_limit(&self.instance, &self.config, serves);
            self.policy.pod_limit = self.limit.addresses;
            self.demand.set_limit(self.limit.addresses);
        }
    }

    /// Whether the primary ENI gives addresses to pods.
    pub(super) fn primary_serves(&self) -> bool {
        let class = self.class.as_ref();
        class.is_ok_and(|class| class.primary_serves)
            && self.excluded_by_tag(&self.placement.subnet).is_none()
    }

    fn excluded_by_tag(&self, subnet: &SubnetId) -> Option<Closed> {
        let Ok(Selector::Tagged { cluster }) = self.class.as_ref().map(|class| &class.subnets)
        else {
            return None;
        };
        let tags = &self.subnets.get(subnet)?.tags;
        excluded(tags, cluster.as_deref()).map(|_| Closed::Excluded)
    }

    fn closed_because(&self, eni: &Eni) -> Option<Closed> {
        let class = self.class.as_ref();
        if eni.primary && !class.is_ok_and(|class| class.primary_serves) {
            return Some(Closed::Primary);
        }
        // Without a class nothing is known against the ENIs of the last one.
        let class = class.ok()?;
        match &class.subnets {
            Selector::Primary => None,
            Selector::Tagged { .. } => self.excluded_by_tag(&eni.subnet),
            Selector::Listed(listed) => {
                let here = listed.iter().any(|one| one.subnet == eni.subnet)
                    && self.reachable(&eni.subnet).is_ok();
                let groups = class.security_groups.as_ref();
                let alike = groups.is_none_or(|groups| same(groups, &eni.groups));
                (!(here && alike)).then_some(Closed::OtherClass)
            }
        }
    }

    /// Gives back what closed ENIs no longer need.
    pub(super) fn release_closed(&mut self, out: &mut Vec<Command>) {
        if !self.may_change() {
            return;
        }
        for key in self.pool.keys() {
            let Some(eni) = self.pool.get(key).filter(|eni| eni.closed.is_some()) else {
                continue;
            };
            let ours = !eni.primary && eni.created_here;
            match eni.phase {
                // EC2 was not asked for it yet, or somebody must decide about its lost answer.
                Phase::Creating if eni.op.is_none() && eni.suspect.is_none() && eni.tries == 0 => {
                    self.pool.remove(key, self.now)
                }
                Phase::Unattached if ours && eni.op.is_none() && eni.suspect.is_none() => {
                    self.enter(key, Phase::Deleting)
                }
                _ if !self.released(eni) => {}
                Phase::Ready if ours && eni.idle() && self.gates.open(Action::Detach, self.now) => {
                    self.enter(key, Phase::Draining)
                }
                Phase::Ready
                    if (ours || eni.primary) && self.gates.open(Action::Unassign, self.now) =>
                {
                    let nets = self.free_blocks(key);
                    if !nets.is_empty() {
                        self.unassign(key, &nets, out);
                    }
                }
                _ => {}
            }
        }
    }

    fn enter(&mut self, key: Key, phase: Phase) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.enter(phase, now);
        }
    }

    /// Whether something of a closed ENI may be given back now.
    fn released(&self, eni: &Eni) -> bool {
        eni.closed
            .is_some_and(|(_, since)| self.now >= since + LASTS)
            && eni.trust == Trust::Sound
            && self.now >= eni.since + MIN_LIFE
            && eni.counts().claimed == 0
            && eni.counts().releasing == 0
            && eni.suspect.is_none()
            && eni.assign.is_none()
            && eni.unassign.is_none()
    }

    /// When something of a closed ENI may be given back.
    pub(super) fn closed_deadline(eni: &Eni) -> Option<Mono> {
        eni.closed.map(|(_, since)| since + LASTS)
    }
}

/// Whether an ENI has these groups. One whose groups are not known may have.
pub(super) fn same(wanted: &[SecurityGroupId], has: &[SecurityGroupId]) -> bool {
    let set = |groups: &[SecurityGroupId]| groups.iter().cloned().collect::<BTreeSet<_>>();
    has.is_empty() || set(wanted) == set(has)
}
