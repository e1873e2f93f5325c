//! Issues each ENI's next step. The ENI's phase says which step that is. Gates and back-off say when.

use std::time::Duration;

use super::Planner;
use crate::{
    Command, Mono,
    command::ConfigureEni,
    gate::Action,
    pool::{
        Key,
        eni::{EXPECTED_WITHIN, Eni, SUSPECT_LIMIT, Termination},
    },
};

impl Planner {
    /// Issues every step that is due.
    pub(super) fn advance(&mut self, out: &mut Vec<Command>) {
        // A daemon that is stopping starts no step: an interrupted detach would leak the ENI (upstream #1927).
        if self.stopping {
            return;
        }
        for key in self.pool.keys() {
            let Some(eni) = self.pool.get(key) else {
                continue;
            };
            if let Some(action) = eni.due(self.now).filter(|action| self.allowed(*action)) {
                self.issue(key, action, out);
            }
            self.settle_termination(key, out);
        }
    }

    fn allowed(&self, action: Action) -> bool {
        action.on_host() || (self.may_change() && self.gates.open(action, self.now))
    }

    fn issue(&mut self, key: Key, action: Action, out: &mut Vec<Command>) {
        let device = if action == Action::Attach {
            self.device_for(key)
        } else {
            None
        };
        let index = self
            .pool
            .get(key)
            .and_then(|eni| eni.index.or_else(|| self.pool.index_for(eni)));
        let op = self.pending(action, Some(key));
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let command = match action {
            Action::Create => Self::create_command(eni, op),
            Action::Attach => {
                eni.device = device;
                eni.id
                    .clone()
                    .zip(device)
                    .map(|(id, device)| Command::AttachEni {
                        op,
                        eni: id,
                        card: eni.card,
                        device,
                    })
            }
            Action::Configure => {
                eni.index = index;
                Self::configure_command(eni, op)
            }
            Action::Deconfigure => eni
                .id
                .clone()
                .map(|id| Command::DeconfigureEni { op, eni: id }),
            Action::Detach => {
                let attachment = eni.id.clone().zip(eni.attachment.clone());
                attachment.map(|(id, attachment)| Command::DetachEni {
                    op,
                    eni: id,
                    mac: eni.mac,
                    attachment,
                })
            }
            Action::Delete => eni.id.clone().map(|id| Command::DeleteEni { op, eni: id }),
            Action::Modify
            | Action::Regroup
            | Action::Assign
            | Action::Unassign
            | Action::Describe
            | Action::Subnets => None,
        };
        match command {
            Some(command) => {
                eni.op = Some(op);
                self.counters.count(action);
                out.push(command);
            }
            None => {
                self.ops.remove(&op);
            }
        }
    }

    fn create_command(eni: &Eni, op: crate::Op) -> Option<Command> {
        let intent = eni.intent.as_ref()?;
        Some(Command::CreateEni {
            op,
            token: intent.token.clone(),
            spec: intent.spec.clone(),
        })
    }

    fn configure_command(eni: &Eni, op: crate::Op) -> Option<Command> {
        Some(Command::ConfigureEni(Box::new(ConfigureEni {
            op,
            eni: eni.id.clone()?,
            mac: eni.mac?,
            primary: eni.address?,
            subnet_cidr: eni.subnet_cidr?,
            card: eni.card,
            device: eni.device?,
            index: eni.index?,
        })))
    }

    /// The device number to attach at: the lowest that is not in use, as far as we know. After a refusal the next one is
    /// tried, because EC2's list may lag (ec2-and-faults §7 row 4).
    fn device_for(&self, key: Key) -> Option<u16> {
        let eni = self.pool.get(key)?;
        let foreign = |device| self.unmanaged.values().any(|at| *at == (eni.card, device));
        let ours = |device| {
            self.pool
                .iter()
                .any(|(other, e)| other != key && e.card == eni.card && e.device == Some(device))
        };
        let refused = eni.device.filter(|_| eni.tries > 0);
        (1..=127).find(|device| {
            !foreign(*device) && !ours(*device) && refused.is_none_or(|last| *device > last)
        })
    }

    fn settle_termination(&mut self, key: Key, out: &mut Vec<Command>) {
        let now = self.now;
        let Some(eni) = self
            .pool
            .get(key)
            .filter(|eni| !eni.leaving() && eni.suspect.is_none())
        else {
            return;
        };
        let Termination::Wanted {
            op: None,
            tries,
            at,
        } = eni.termination
        else {
            return;
        };
        let Some((id, attachment)) = eni.id.clone().zip(eni.attachment.clone()) else {
            return;
        };
        if now < at || !self.allowed(Action::Modify) {
            return;
        }
        let op = self.pending(Action::Modify, Some(key));
        if let Some(eni) = self.pool.get_mut(key) {
            eni.termination = Termination::Wanted {
                op: Some(op),
                tries,
                at,
            };
        }
        self.counters.count(Action::Modify);
        out.push(Command::DeleteOnTermination {
            op,
            eni: id,
            attachment,
        });
    }

    /// Every time at which something about this ENI changes without an event.
    pub(super) fn deadlines_of(&self, eni: &Eni) -> impl Iterator<Item = Mono> + use<> {
        let retry = Some(eni.retry_at);
        let termination = match eni.termination {
            Termination::Wanted { at, .. } => Some(at),
            Termination::Settled => None,
        };
        // While a pod waits, growth goes elsewhere once this ENI has been slow for too long.
        let waiting = self.waiting.queued() > 0;
        let slow = waiting.then_some(eni.phase_since + EXPECTED_WITHIN);
        let unclear = eni
            .suspect
            .filter(|_| waiting)
            .map(|since| since + SUSPECT_LIMIT);
        let asked = eni
            .assign
            .filter(|_| waiting)
            .map(|asked| asked.since + EXPECTED_WITHIN);
        let age = Some(eni.since + super::shrink::MIN_LIFE);
        let assign = Some(eni.assign_after);
        let closed = Self::closed_deadline(eni);
        let regroup = eni.regroup.wanted.then_some(eni.regroup.at);
        [
            retry,
            termination,
            slow,
            unclear,
            asked,
            age,
            assign,
            closed,
            regroup,
        ]
        .into_iter()
        .flatten()
    }

    /// Delays the next try of an ENI's step.
    pub(super) fn postpone(&mut self, key: Key, delay: Duration) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.retry_at = now + delay;
        }
    }
}
