//! What an answer, or a missing answer, changes. No command is issued here: the next step follows from the new state.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Pending, Planner};
use crate::{
    Answer, AttachmentId, Class, Failure, Mono, Op,
    event::Observed,
    gate::Action,
    pool::{Key, eni::Termination},
    snapshot::Phase,
};

impl Planner {
    pub(super) fn answered(&mut self, op: Op, result: Result<Answer, Failure>) {
        let Some(pending) = self.ops.remove(&op) else {
            // The answer came after its deadline. Our state does not show what the call did, so read EC2's list.
            self.describe_after(std::time::Duration::ZERO);
            return;
        };
        match result {
            Ok(answer) => self.succeeded(op, &pending, answer),
            Err(failure) => self.failed(op, &pending, &failure),
        }
    }

    /// Treats overdue commands as lost: they may have taken effect.
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
            let message = format!(
                "{}: no answer for {} s",
                pending.action.api(),
                pending.action.patience().as_secs()
            );
            self.counters.overdue += 1;
            self.failed(op, &pending, &Failure::new(class, message));
        }
    }

    fn succeeded(&mut self, op: Op, pending: &Pending, answer: Answer) {
        self.gates.passed(pending.action, self.now);
        let Some(key) = pending.key else {
            match answer {
                Answer::Described(list) => self.described(&list, pending.sent),
                Answer::Subnets(list) => self.listed_subnets(list),
                _ => {}
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
            (Action::Regroup, Answer::Done) => self.regrouped(key, op),
            (Action::Configure, Answer::Done) => self.configured(key, op),
            (Action::Deconfigure, Answer::Done) => self.deconfigured(key, op),
            (Action::Detach, Answer::Done) => self.detached(key),
            (Action::Delete, Answer::Done) => self.pool.remove(key, self.now),
            (action, _) => {
                let message = format!("{}: an unexpected answer", action.api());
                let failure = Failure::new(Class::Ambiguous, message);
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

    /// The step is done. Enters the next phase.
    fn finish(&mut self, key: Key, op: Op, next: Phase) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key).filter(|eni| eni.op == Some(op)) {
            eni.op = None;
            eni.carries = next == Phase::Ready;
            eni.enter(next, now);
        }
    }

    /// The ENI is up. If it is new, the time that EC2 needed is now known.
    fn configured(&mut self, key: Key, op: Op) {
        if let Some(wanted) = self.pool.get_mut(key).and_then(|eni| eni.wanted.take()) {
            self.demand.delivered(self.now.since(wanted));
        }
        self.finish(key, op, Phase::Ready);
    }

    fn created(&mut self, key: Key, seen: &Observed) {
        let now = self.now;
        if self
            .pool
            .key_of(&seen.eni)
            .is_some_and(|known| known != key)
        {
            // A repetition was answered with the ENI that a list has already shown.
            self.pool.remove(key, now);
            return;
        }
        let card = self.instance.default_card;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let asked = eni.intent.take().map(|intent| intent.spec.amount);
        let subnet = eni.subnet.clone();
        eni.op = None;
        eni.learn(seen, card);
        eni.card = card;
        // Its life starts now, however long ago it was first requested.
        eni.since = now;
        eni.enter(Phase::Unattached, now);
        self.take_blocks(key, &seen.addresses, &seen.prefixes);
        let prefixes = matches!(asked, Some(crate::Amount::Prefixes(_)));
        let taken = asked.map_or(0, crate::Amount::addresses) + 1;
        self.subnets.took(&subnet, taken);
        self.gates.created_in(&subnet);
        self.gates.plentiful(
            &subnet,
            u32::from(self.instance.slots_per_eni()),
            prefixes,
            now,
        );
    }

    fn attached(&mut self, key: Key, attachment: AttachmentId) {
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

    fn assigned(&mut self, key: Key, op: Op, addresses: &[IpAddr], prefixes: &[IpNet]) {
        let now = self.now;
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let subnet = eni.subnet.clone();
        eni.assign = eni.assign.filter(|asked| asked.op != op);
        self.take_blocks(key, addresses, prefixes);
        if addresses.is_empty() && prefixes.is_empty() {
            // Without this, an empty success would be repeated at once, for ever.
            let message = format!("{}: EC2 assigned nothing", Action::Assign.api());
            let failure = Failure::new(Class::Transient, message);
            self.gates.failed(Action::Assign, &failure, now);
            return;
        }
        if let Some(eni) = self.pool.get_mut(key) {
            eni.assign_tries = 0;
        }
        let singles = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        let blocks = u32::try_from(prefixes.len()).unwrap_or(u32::MAX);
        let taken = singles.saturating_add(blocks.saturating_mul(crate::limits::PREFIX_SIZE));
        self.subnets.took(&subnet, taken);
        self.gates.plentiful(
            &subnet,
            u32::from(self.instance.slots_per_eni()),
            !prefixes.is_empty(),
            now,
        );
    }

    pub(super) fn take_blocks(&mut self, key: Key, addresses: &[IpAddr], prefixes: &[IpNet]) {
        for net in addresses
            .iter()
            .map(|address| IpNet::from(*address))
            .chain(prefixes.iter().map(IpNet::trunc))
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
        let gone: Vec<IpNet> = eni
            .blocks
            .values()
            .filter(|block| block.releasing)
            .map(|block| block.net)
            .collect();
        for net in gone {
            self.pool.drop_block(key, net, self.now);
        }
    }

    pub(super) fn set_termination(&mut self, key: Key, termination: Termination) {
        if let Some(eni) = self.pool.get_mut(key) {
            eni.termination = termination;
        }
    }

    /// The host no longer uses the ENI. If pods need it again by now, it is brought up again: that is cheaper than
    /// detaching it and creating another one.
    fn deconfigured(&mut self, key: Key, op: Op) {
        let wanted = self.policy.short(&self.stock(), &self.flow()).addresses > 0;
        let Some(eni) = self.pool.get(key) else {
            return;
        };
        let sound = eni.trust == crate::pool::eni::Trust::Sound;
        if eni.forget_without_delete {
            return self.pool.remove(key, self.now);
        }
        let next = match &eni.attachment {
            Some(_)
                if wanted
                    && sound
                    && self.may_change()
                    && !eni.never_came_up
                    && eni.closed.is_none() =>
            {
                Phase::Configuring
            }
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
}
