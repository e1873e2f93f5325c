//! What an answer, or its absence, changes. No command is issued here: the next step follows from the new state.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{Pending, Planner};
use crate::{
    Answer, Attachment, Class, Failure, Mono, Op,
    event::Observed,
    gate::{Action, STEP, TERMINATION},
    pool::{
        Key,
        eni::{Eni, Phase, Termination},
    },
};

/// Attach tries before an ENI is given up: each with fresh evidence and another device number.
const ATTACH_TRIES: u32 = 5;
/// Tries to bring an ENI up before it is given up: its link never came.
const CONFIGURE_TRIES: u32 = 4;
/// The host's side of a dead link needs no more: rules that lead nowhere harm nobody.
const DECONFIGURE_TRIES: u32 = 3;
/// Deletes refused as "in use" before EC2 is asked whether the ENI is attached again.
const DELETE_TRIES: u32 = 3;

impl Planner {
    pub(super) fn answered(&mut self, op: Op, result: Result<Answer, Failure>) {
        let Some(pending) = self.ops.remove(&op) else {
            // An answer after its deadline: what it did is no longer in our books, so read EC2's.
            self.want_describe(std::time::Duration::ZERO);
            return;
        };
        match result {
            Ok(answer) => self.succeeded(op, &pending, answer),
            Err(failure) => self.failed(op, &pending, &failure),
        }
    }

    /// Treats commands whose answer is overdue as lost: they may have taken effect.
    pub(super) fn overdue(&mut self, now: Mono) {
        let late = |pending: &Pending| pending.sent + pending.action.patience() <= now;
        let overdue: Vec<Op> = self
            .ops
            .iter()
            .filter(|(_, pending)| late(pending))
            .map(|(op, _)| *op)
            .collect();
        for op in overdue {
            let Some(pending) = self.ops.remove(&op) else {
                continue;
            };
            let class = if pending.action.on_host() {
                Class::Host
            } else {
                Class::Ambiguous
            };
            let message = format!("no answer for {} s", pending.action.patience().as_secs());
            self.counters.overdue += 1;
            self.failed(op, &pending, &Failure { class, message });
        }
    }

    fn succeeded(&mut self, op: Op, pending: &Pending, answer: Answer) {
        self.gates.passed(pending.action, self.now);
        let Some(key) = pending.key else {
            if let Answer::Described(list) = answer {
                self.described(&list, pending.sent);
            }
            return;
        };
        if self.pool.get(key).is_none() {
            return;
        }
        match (pending.action, answer) {
            (Action::Create, Answer::Created(seen)) => self.created(key, &seen),
            (Action::Attach, Answer::Attached { attachment }) => self.attached(key, attachment),
            (
                Action::Assign,
                Answer::Assigned {
                    addresses,
                    prefixes,
                },
            ) => self.assigned(key, op, &addresses, &prefixes),
            (Action::Unassign, Answer::Done) => self.unassigned(key, op),
            (Action::Modify, Answer::Done) => self.set_termination(key, Termination::Settled),
            (Action::Configure, Answer::Done) => self.finish(key, op, Phase::Ready),
            (Action::Deconfigure, Answer::Done) => self.deconfigured(key, op),
            (Action::Detach, Answer::Done) => self.detached(key),
            (Action::Delete, Answer::Done) => self.pool.remove(key, self.now),
            (action, _) => {
                let failure = Failure {
                    class: Class::Ambiguous,
                    message: "an answer of another kind".to_owned(),
                };
                self.failed(
                    op,
                    &Pending {
                        action,
                        ..pending.clone()
                    },
                    &failure,
                );
            }
        }
    }

    /// The step is done; the next one follows.
    fn finish(&mut self, key: Key, op: Op, next: Phase) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key).filter(|eni| eni.op == Some(op)) {
            eni.op = None;
            eni.carries = next == Phase::Ready;
            eni.enter(next, now);
        }
    }

    fn created(&mut self, key: Key, seen: &Observed) {
        let now = self.now;
        if self
            .pool
            .key_of(&seen.eni)
            .is_some_and(|known| known != key)
        {
            // A repetition was answered with the ENI that a list had shown us already.
            self.pool.remove(key, now);
            return;
        }
        let card = self.instance.default_card;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let asked = eni.intent.take().map(|intent| intent.amount);
        let subnet = eni.subnet.clone();
        eni.op = None;
        eni.learn(seen, card);
        eni.card = card;
        eni.enter(Phase::Unattached, now);
        self.take_blocks(key, &seen.addresses, &seen.prefixes);
        let prefixes = matches!(asked, Some(crate::Amount::Prefixes(_)));
        self.gates.plentiful(
            &subnet,
            u32::from(self.instance.slots_per_eni()),
            prefixes,
            now,
        );
    }

    fn attached(&mut self, key: Key, attachment: Attachment) {
        let now = self.now;
        self.gates.limit.pass(now);
        if let Some(eni) = self.pool.get_mut(key) {
            eni.op = None;
            eni.attachment = Some(attachment);
            eni.termination = Termination::Wanted {
                op: None,
                tries: 0,
                at: now,
            };
            eni.enter(Phase::Configuring, now);
        }
    }

    fn assigned(&mut self, key: Key, op: Op, addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) {
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let subnet = eni.subnet.clone();
        eni.assign = eni.assign.filter(|asked| asked.op != op);
        self.take_blocks(key, addresses, prefixes);
        if addresses.is_empty() && prefixes.is_empty() {
            // Success with nothing in it would be asked for again at once, for ever.
            let failure = Failure {
                class: Class::Transient,
                message: "EC2 assigned nothing".to_owned(),
            };
            self.gates.failed(Action::Assign, &failure, now);
            return;
        }
        self.gates.plentiful(
            &subnet,
            u32::from(self.instance.slots_per_eni()),
            !prefixes.is_empty(),
            now,
        );
    }

    pub(super) fn take_blocks(&mut self, key: Key, addresses: &[Ipv4Addr], prefixes: &[Ipv4Net]) {
        for net in addresses
            .iter()
            .map(|address| Ipv4Net::from(*address))
            .chain(prefixes.iter().map(Ipv4Net::trunc))
        {
            self.pool.add_block(key, net, self.now);
        }
    }

    fn unassigned(&mut self, key: Key, op: Op) {
        let Some(eni) = self
            .pool
            .get_mut(key)
            .filter(|eni| eni.unassign == Some(op))
        else {
            return;
        };
        eni.unassign = None;
        let gone: Vec<Ipv4Net> = eni
            .blocks
            .values()
            .filter(|block| block.releasing)
            .map(|block| block.net)
            .collect();
        for net in gone {
            self.pool.drop_block(key, net, self.now);
        }
    }

    fn set_termination(&mut self, key: Key, termination: Termination) {
        if let Some(eni) = self.pool.get_mut(key) {
            eni.termination = termination;
        }
    }

    /// The host no longer uses the ENI. If pods came to want it meanwhile, it is brought up again: cheaper than
    /// detaching it and asking for another.
    fn deconfigured(&mut self, key: Key, op: Op) {
        let wanted = self.policy.short(&self.stock(), &self.flow()).addresses > 0;
        let Some(eni) = self.pool.get(key) else {
            return;
        };
        let sound = eni.trust == crate::pool::eni::Trust::Sound;
        let next = match &eni.attachment {
            Some(_) if wanted && sound && self.may_change() && !eni.condemned => Phase::Configuring,
            Some(_) => Phase::Detaching,
            None => Phase::Deleting,
        };
        self.finish(key, op, next);
    }

    pub(super) fn detached(&mut self, key: Key) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.op = None;
            eni.attachment = None;
            eni.device = None;
            eni.index = None;
            eni.enter(Phase::Deleting, now);
        }
        self.gates.limit.pass(now);
    }

    fn failed(&mut self, op: Op, pending: &Pending, failure: &Failure) {
        self.counters.failure(&failure.class);
        self.gates.failed(pending.action, failure, self.now);
        let Some(key) = pending.key else {
            return self.describe_failed(op);
        };
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        if eni.op == Some(op) {
            eni.op = None;
        }
        match pending.action {
            Action::Create => self.create_failed(key, failure),
            Action::Attach => self.attach_failed(key, failure),
            Action::Configure => self.configure_failed(key),
            Action::Modify => self.modify_failed(key),
            Action::Assign => self.assign_failed(key, op, failure),
            Action::Unassign => self.unassign_failed(key, op, failure),
            Action::Deconfigure => self.deconfigure_failed(key),
            Action::Detach => self.detach_failed(key, failure),
            Action::Delete => self.delete_failed(key, failure),
            Action::Describe => {}
        }
    }

    /// EC2 describes the ENI before anything else is done to it.
    pub(super) fn doubt(&mut self, key: Key) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.suspect = Some(now);
        }
        self.want_describe(std::time::Duration::ZERO);
    }

    /// A failed step is tried again later, each time later.
    fn again(&mut self, key: Key) -> u32 {
        let Some(eni) = self.pool.get_mut(key) else {
            return 0;
        };
        eni.tries += 1;
        let tries = eni.tries;
        let delay = self.gates.delay(STEP, tries - 1);
        self.postpone(key, delay);
        tries
    }

    fn create_failed(&mut self, key: Key, failure: &Failure) {
        if failure.class == Class::Ambiguous {
            // It may exist. The same token makes the repetition return it (ec2-and-faults §7 row 1).
            return self.doubt(key);
        }
        self.scarcity(key, failure);
        if failure.class == Class::Limit {
            self.gates.hit_limit(self.now);
            self.want_describe(std::time::Duration::ZERO);
        } else if matches!(failure.class, Class::NotFound | Class::InUse) {
            // Nothing says when this passes (a subnet or group is missing); treat it like an outage.
            self.gates.failed(
                Action::Create,
                &Failure {
                    class: Class::Transient,
                    ..failure.clone()
                },
                self.now,
            );
        }
        self.pool.remove(key, self.now);
    }

    /// A subnet without room: remember it for the subnet alone.
    fn scarcity(&mut self, key: Key, failure: &Failure) {
        let Some(asked) = self.pool.get(key).and_then(Eni::asked) else {
            return;
        };
        match &failure.class {
            Class::Exhausted { subnet } => {
                self.gates
                    .scarce(subnet, u32::from(asked.slots()), self.now)
            }
            Class::Fragmented { subnet } => self.gates.fragmented(subnet, self.now),
            _ => {}
        }
    }

    fn attach_failed(&mut self, key: Key, failure: &Failure) {
        let now = self.now;
        let tries = match failure.class {
            Class::Throttled { .. } | Class::Transient | Class::Denied { .. } => return,
            _ => self.again(key),
        };
        if failure.class == Class::Limit {
            // Somebody else took the slot. Room is learnt from EC2's list; this ENI has no place here.
            self.gates.hit_limit(now);
            self.want_describe(std::time::Duration::ZERO);
        }
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        if failure.class != Class::InUse {
            eni.device = None;
        }
        if failure.class == Class::Limit || tries >= ATTACH_TRIES {
            eni.enter(Phase::Deleting, now);
        } else {
            self.doubt(key);
        }
    }

    fn configure_failed(&mut self, key: Key) {
        let tries = self.again(key);
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        eni.carries = false;
        if tries >= CONFIGURE_TRIES && !eni.primary && eni.idle() {
            eni.condemned = true;
            eni.enter(Phase::Draining, now);
        }
    }

    fn modify_failed(&mut self, key: Key) {
        let Some(Termination::Wanted { tries, .. }) = self.pool.get(key).map(|eni| eni.termination)
        else {
            return;
        };
        let at = self.now + self.gates.delay(TERMINATION, tries);
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
            Class::Throttled { .. } | Class::Transient | Class::Denied { .. } => {}
            Class::Exhausted { .. } | Class::Fragmented { .. } => {}
            // By count and without a token: a blind repetition would take twice (ec2-and-faults §7 rows 8, 10).
            Class::Limit | Class::NotFound | Class::InUse | Class::Ambiguous | Class::Host => {
                self.doubt(key)
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
            // Nothing was done: the addresses are ours and usable as before.
            Class::Throttled { .. } | Class::Denied { .. } | Class::Transient => {
                let nets: Vec<Ipv4Net> = eni
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
            Class::Throttled { .. } | Class::Denied { .. } | Class::Transient => {}
            _ => {
                self.again(key);
            }
        }
    }

    fn delete_failed(&mut self, key: Key, failure: &Failure) {
        match failure.class {
            Class::NotFound => self.pool.remove(key, self.now),
            Class::Throttled { .. } | Class::Denied { .. } | Class::Transient => {}
            Class::Ambiguous => self.doubt(key),
            _ => {
                if self.again(key) >= DELETE_TRIES {
                    self.doubt(key);
                }
            }
        }
    }

    fn describe_failed(&mut self, op: Op) {
        if self.describe.op == Some(op) {
            self.describe.op = None;
        }
        let delay = self
            .gates
            .delay(crate::gate::THROTTLED, self.describe.failures);
        self.describe.failures += 1;
        self.want_describe(delay);
    }
}
