//! What a failure changes: in the gates for the account or the subnet, in the ENI for its own tries. There is one function
//! for each action. None issues a command.

use std::time::Duration;

use ipnet::IpNet;

use super::{
    Pending, Planner,
    reconcile::{LAG, YOUNG},
};
use crate::{
    Amount, Class, Failure, Op,
    gate::{Action, pace},
    pool::{
        Key,
        eni::{Eni, Termination, Trust},
    },
    snapshot::Phase,
};

/// Attach tries before an ENI is given up. Each uses a new list and another device number.
const ATTACH_TRIES: u32 = 5;
/// Tries to bring an ENI up before it is given up because its link never came.
const CONFIGURE_TRIES: u32 = 4;
/// Tries to remove an ENI's rules from the host. Rules without a link harm nobody, so a few tries are enough.
const DECONFIGURE_TRIES: u32 = 3;
/// Deletes that are refused as "in use" before EC2 is asked whether the ENI is attached again.
const DELETE_TRIES: u32 = 3;

impl Planner {
    pub(super) fn failed(&mut self, op: Op, pending: &Pending, failure: &Failure) {
        self.counters.failure(&failure.class);
        let elsewhere = self.goes_elsewhere(pending, failure);
        match &elsewhere {
            Some(subnet) => self
                .gates
                .refuse_in(subnet, failure, pace::DENIED, self.now),
            None => self.gates.failed(pending.action, failure, self.now),
        }
        let Some(key) = pending.key else {
            return match pending.action {
                Action::Subnets => self.subnets_failed(op, failure),
                _ => self.describe_failed(op, failure),
            };
        };
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        if eni.op == Some(op) {
            eni.op = None;
        }
        match pending.action {
            Action::Create => self.create_failed(key, failure, elsewhere.is_some()),
            Action::Attach => self.attach_failed(key, failure),
            Action::Configure => self.configure_failed(key),
            Action::Modify => self.modify_failed(key),
            Action::Regroup => self.regroup_failed(key, op, failure),
            Action::Assign => self.assign_failed(key, op, failure),
            Action::Unassign => self.unassign_failed(key, op, failure),
            Action::Deconfigure => self.deconfigure_failed(key),
            Action::Detach => self.detach_failed(key, failure),
            Action::Delete => self.delete_failed(key, failure),
            Action::Describe | Action::Subnets => {}
        }
    }

    /// EC2 must describe the ENI before anything else is done to it. A second list follows after [`LAG`], when no list can
    /// be so old that it misses what the lost call did: an unknown address would stay assigned (I4).
    pub(super) fn doubt(&mut self, key: Key) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.suspect = Some(now);
        }
        self.describe.confirm = Some(now + LAG);
        self.describe_after(Duration::ZERO);
    }

    /// A failed step is tried again, each time after a longer delay.
    fn again(&mut self, key: Key) -> u32 {
        let Some(eni) = self.pool.get_mut(key) else {
            return 0;
        };
        eni.tries += 1;
        let tries = eni.tries;
        let delay = self.gates.delay(pace::STEP, tries - 1);
        self.postpone(key, delay);
        tries
    }

    /// `elsewhere`: only the subnet rests, and the next ENI goes to another one.
    fn create_failed(&mut self, key: Key, failure: &Failure, elsewhere: bool) {
        if failure.class == Class::Ambiguous {
            // It may exist. With the same token the repetition returns it (ec2-and-faults §7 row 1).
            self.again(key);
            return self.doubt(key);
        }
        self.scarcity(key, failure);
        if elsewhere {
            return self.pool.remove(key, self.now);
        }
        if failure.class == Class::Limit {
            self.gates.hit_limit(self.now);
            self.describe_after(Duration::ZERO);
        } else if failure.class == Class::NotFound {
            // A subnet or group is missing, and nobody knows until when. The list shows which groups the primary ENI has
            // by now.
            let now = self.now;
            self.gates
                .refuse(Action::Create, failure, pace::REFUSED, now);
            self.describe_after(Duration::ZERO);
        } else if failure.class == Class::InUse {
            let now = self.now;
            self.gates
                .refuse(Action::Create, failure, pace::TRANSIENT, now);
        }
        self.pool.remove(key, self.now);
    }

    /// A subnet has no room: only calls for that subnet wait. The ENI says which subnet it is, because an Assign does not
    /// name one.
    fn scarcity(&mut self, key: Key, failure: &Failure) {
        let of = |eni: &Eni| Some((eni.subnet.clone(), eni.asked()?));
        let Some((subnet, asked)) = self.pool.get(key).and_then(of) else {
            return;
        };
        match &failure.class {
            Class::Exhausted => {
                self.subnets.took(&subnet, u32::MAX);
                self.gates
                    .scarce(&subnet, u32::from(asked.slots()), self.now)
            }
            // In IPv4, single addresses take the place of prefixes. In IPv6 there is no alternative.
            Class::Fragmented if matches!(asked, Amount::Ipv6Prefixes(_)) => {
                self.gates.scarce(&subnet, 1, self.now)
            }
            Class::Fragmented => self.gates.fragmented(&subnet, self.now),
            _ => {}
        }
    }

    fn attach_failed(&mut self, key: Key, failure: &Failure) {
        let now = self.now;
        let tries = match failure.class {
            Class::Throttled { .. } | Class::Transient | Class::Denied { .. } => return,
            _ => self.again(key),
        };
        if matches!(failure.class, Class::Refused(_)) {
            return self.attach_refused(key, tries);
        }
        if failure.class == Class::Limit {
            // Somebody else took the slot. This ENI has no place here; EC2's list will show what room there is.
            self.gates.hit_limit(now);
            self.describe_after(Duration::ZERO);
        }
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        if failure.class != Class::InUse {
            eni.device = None;
        }
        if failure.class == Class::Limit || tries >= ATTACH_TRIES {
            eni.enter(Phase::Deleting, now);
            self.gates.hit_host(now);
        } else {
            self.doubt(key);
        }
    }

    /// No other list and no other device number would change EC2's answer. If the reason is in the ENI itself, another one
    /// may do.
    fn attach_refused(&mut self, key: Key, tries: u32) {
        let now = self.now;
        if tries >= ATTACH_TRIES
            && let Some(eni) = self.pool.get_mut(key)
        {
            eni.device = None;
            eni.enter(Phase::Deleting, now);
        }
    }

    fn configure_failed(&mut self, key: Key) {
        let tries = self.again(key);
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        eni.carries = false;
        if tries < CONFIGURE_TRIES || eni.primary || !eni.idle() {
            return;
        }
        if eni.created_here {
            eni.never_came_up = true;
            eni.enter(Phase::Draining, now);
        } else {
            // Another program may have its link, in another namespace for example. EC2's next list is another chance.
            eni.trust = Trust::Unmanaged;
        }
    }

    fn modify_failed(&mut self, key: Key) {
        let Some(Termination::Wanted { tries, .. }) = self.pool.get(key).map(|eni| eni.termination)
        else {
            return;
        };
        let at = self.now + self.gates.delay(pace::TERMINATION, tries);
        self.set_termination(
            key,
            Termination::Wanted {
                op: None,
                tries: tries + 1,
                at,
            },
        );
    }

    fn assign_failed(&mut self, key: Key, op: Op, failure: &Failure) {
        self.scarcity(key, failure);
        let Some(eni) = self
            .pool
            .get_mut(key)
            .filter(|eni| eni.assign.is_some_and(|asked| asked.op == op))
        else {
            return;
        };
        eni.assign = None;
        match failure.class {
            Class::Throttled { .. } | Class::Transient => {}
            Class::Denied { .. } | Class::Refused(_) => {}
            Class::Exhausted | Class::Fragmented => {}
            // An Assign has no token: a blind repetition would take addresses twice (ec2-and-faults §7 rows 8, 10).
            Class::Limit | Class::NotFound | Class::InUse | Class::Ambiguous | Class::Host => {
                eni.assign_tries += 1;
                eni.assign_after = self.now + self.gates.delay(pace::STEP, eni.assign_tries - 1);
                self.doubt(key);
            }
        }
    }

    fn unassign_failed(&mut self, key: Key, op: Op, failure: &Failure) {
        let Some(eni) = self
            .pool
            .get_mut(key)
            .filter(|eni| eni.unassign == Some(op))
        else {
            return;
        };
        eni.unassign = None;
        match failure.class {
            // Nothing was done. The addresses are usable as before.
            Class::Throttled { .. }
            | Class::Denied { .. }
            | Class::Refused(_)
            | Class::Transient => {
                let nets: Vec<IpNet> = eni
                    .blocks
                    .values()
                    .filter(|b| b.releasing)
                    .map(|b| b.net)
                    .collect();
                for net in nets {
                    eni.with_block(net, |block| block.releasing = false);
                }
            }
            _ => self.doubt(key),
        }
    }

    fn deconfigure_failed(&mut self, key: Key) {
        let now = self.now;
        if self.again(key) >= DECONFIGURE_TRIES
            && let Some(eni) = self.pool.get_mut(key)
        {
            if eni.forget_without_delete {
                return self.pool.remove(key, now);
            }
            let next = if eni.attachment.is_some() {
                Phase::Detaching
            } else {
                Phase::Deleting
            };
            eni.enter(next, now);
        }
    }

    fn detach_failed(&mut self, key: Key, failure: &Failure) {
        match failure.class {
            Class::NotFound => self.detached(key),
            Class::Ambiguous => {
                self.again(key);
                self.doubt(key);
            }
            Class::Throttled { .. }
            | Class::Denied { .. }
            | Class::Refused(_)
            | Class::Transient => {}
            _ => {
                self.again(key);
            }
        }
    }

    fn delete_failed(&mut self, key: Key, failure: &Failure) {
        let now = self.now;
        let young = |eni: &Eni| now < eni.since + YOUNG;
        match failure.class {
            // EC2 may not find a new ENI for a while. Only a list tells "not yet" from "no longer".
            Class::NotFound if self.pool.get(key).is_some_and(young) => {
                self.again(key);
                self.doubt(key);
            }
            Class::NotFound => self.pool.remove(key, now),
            Class::Throttled { .. }
            | Class::Denied { .. }
            | Class::Refused(_)
            | Class::Transient => {}
            Class::Ambiguous => {
                self.again(key);
                self.doubt(key);
            }
            _ => {
                if self.again(key) >= DELETE_TRIES {
                    self.doubt(key);
                }
            }
        }
    }

    fn describe_failed(&mut self, op: Op, failure: &Failure) {
        if self.describe.op == Some(op) {
            self.describe.op = None;
        }
        if matches!(
            failure.class,
            Class::Throttled {
                retry_after: Some(_)
            }
        ) {
            // The gate waits for exactly that long.
            return self.describe_after(Duration::ZERO);
        }
        let delay = self.gates.delay(pace::DESCRIBE, self.describe.failures);
        self.describe.failures += 1;
        // A list that was wanted sooner has to wait as well.
        self.describe.at = self.describe.at.map(|at| at.max(self.now + delay));
        self.describe_after(delay);
    }
}
