//! Security groups: ENIs that inherit those of the primary ENI follow when they change, as with the AWS VPC CNI.
//!
//! EC2's lists show the groups of all ENIs. In custom networking ENIs keep the groups that they were created with, and ENIs
//! that this node did not create keep theirs.

use super::{Planner, closing::same};
use crate::{
    Class, Command, Failure, Op, SecurityGroupId,
    gate::{Action, pace},
    placement::Selector,
    pool::{Key, eni::Eni},
};

impl Planner {
    /// Notes which ENIs have other groups than they should inherit.
    pub(super) fn compare_groups(&mut self) {
        let wanted = self.inherited().map(<[_]>::to_vec).unwrap_or_default();
        for key in self.pool.keys() {
            if let Some(eni) = self.pool.get_mut(key) {
                let inherits = !wanted.is_empty() && !eni.primary && eni.created_here;
                eni.regroup.wanted = inherits && !same(&wanted, &eni.groups);
            }
        }
    }

    /// The groups of the primary ENI, if other ENIs inherit them.
    fn inherited(&self) -> Option<&[SecurityGroupId]> {
        let class = self.class.as_ref().ok()?;
        let inherits = !matches!(class.subnets, Selector::Listed(_));
        let primary = self.pool.enis().find(|eni| eni.primary)?;
        (inherits && class.security_groups.is_none()).then_some(primary.groups.as_slice())
    }

    /// Gives them the groups of the primary ENI.
    pub(super) fn regroup(&mut self, out: &mut Vec<Command>) {
        for key in self.pool.keys() {
            let due = self.pool.get(key).is_some_and(|eni| self.is_due(eni));
            if !due || !self.may_change() || !self.gates.open(Action::Regroup, self.now) {
                continue;
            }
            let Some(groups) = self.inherited().map(<[_]>::to_vec) else {
                return;
            };
            let op = self.pending(Action::Regroup, Some(key));
            let Some(eni) = self.pool.get_mut(key) else {
                continue;
            };
            let Some(id) = eni.id.clone() else { continue };
            eni.regroup.op = Some(op);
            self.counters.count(Action::Regroup);
            out.push(Command::SetGroups {
                op,
                eni: id,
                groups,
            });
        }
    }

    fn is_due(&self, eni: &Eni) -> bool {
        eni.regroup.wanted
            && eni.regroup.op.is_none()
            && self.now >= eni.regroup.at
            && eni.id.is_some()
            && eni.attachment.is_some()
            && eni.suspect.is_none()
            && !eni.leaving()
    }

    pub(super) fn regrouped(&mut self, key: Key, op: Op) {
        let groups = self.inherited().map(<[_]>::to_vec);
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        if eni.regroup.op == Some(op) {
            eni.regroup.op = None;
            eni.regroup.tries = 0;
            // The next list shows whether that is true.
            eni.groups = groups.unwrap_or_default();
        }
    }

    pub(super) fn regroup_failed(&mut self, key: Key, op: Op, failure: &Failure) {
        let tries = self.pool.get(key).map_or(0, |eni| eni.regroup.tries);
        let wait = match failure.class {
            Class::Throttled {
                retry_after: Some(wait),
            } => wait,
            _ => self.gates.delay(pace::TERMINATION, tries),
        };
        let at = self.now + wait;
        if let Some(eni) = self.pool.get_mut(key)
            && eni.regroup.op == Some(op)
        {
            eni.regroup.op = None;
            eni.regroup.tries += 1;
            eni.regroup.at = at;
        }
    }
}
