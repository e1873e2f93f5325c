//! Timers: attachments complete, detachments end, addresses become usable.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;

use super::{
    World,
    model::{AttachmentState, Change, NetworkInterface},
};
use crate::{
    ids::{AttachmentId, EniId},
    latency::Span,
};

#[derive(Clone, Debug)]
pub(super) enum Timer {
    Attached {
        eni: EniId,
        attachment: AttachmentId,
    },
    Detached {
        eni: EniId,
        attachment: AttachmentId,
    },
    Usable {
        eni: EniId,
        net: IpNet,
    },
}

/// Ordered by time, then by the order of creation.
#[derive(Clone, Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<(Duration, u64), Timer>,
    sequence: u64,
    /// How many of the next attaches stay `attaching`, and detaches `detaching`.
    pub(super) stuck_attaches: u32,
    pub(super) stuck_detaches: u32,
}

impl Timers {
    fn set(&mut self, at: Duration, timer: Timer) {
        self.sequence += 1;
        self.due.insert((at, self.sequence), timer);
    }

    fn pop(&mut self, now: Duration) -> Option<(Duration, Timer)> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now)
            .then(|| (entry.key().0, entry.get().clone()))
            .inspect(|_| {
                self.due.pop_first();
            })
    }
}

impl World {
    /// When the next timer is due.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        self.timers.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Runs all timers that are due by `now`, in order.
    pub fn advance(&mut self, now: Duration) {
        while let Some((at, timer)) = self.timers.pop(now) {
            match timer {
                Timer::Attached { eni, attachment } => self.finish_attach(&eni, &attachment, at),
                Timer::Detached { eni, attachment } => self.finish_detach(&eni, &attachment, at),
                Timer::Usable { eni, net } => self.finish_assign(eni, net),
            }
        }
    }

    /// The changes for the fabric since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whether [`World::take_changes`] has changes to return.
    #[must_use]
    pub const fn has_changes(&self) -> bool {
        !self.changes.is_empty()
    }

    /// The next `count` attaches stay `attaching` forever.
    pub const fn stall_attaches(&mut self, count: u32) {
        self.timers.stuck_attaches = count;
    }

    /// The next `count` detaches stay `detaching` forever.
    pub const fn stall_detaches(&mut self, count: u32) {
        self.timers.stuck_detaches = count;
    }

    pub(super) fn after(&mut self, span: Span, now: Duration, timer: Timer) {
        let delay = self.latency.settle(span, &mut self.dice.delays);
        self.timers.set(now + delay, timer);
    }

    pub(super) fn finish_attach(&mut self, eni: &EniId, attachment: &AttachmentId, at: Duration) {
        let Some(e) = self.interfaces.get_mut(eni) else {
            return;
        };
        let Some(a) = e.attachment.as_mut().filter(|a| a.id == *attachment) else {
            return;
        };
        if a.state != AttachmentState::Attaching {
            return; // A detach came first.
        }
        a.state = AttachmentState::Attached;
        let instance = a.instance.clone();
        let e = Box::new(e.clone());
        self.shadows.attached(&e, &instance, at);
        let delivers = e
            .owned()
            .into_iter()
            .filter(|n| !self.unusable.contains(&(eni.clone(), *n)))
            .collect();
        // First, so that nothing is delivered without it.
        self.refresh_guards();
        self.changes.push(Change::Attached { eni: e, delivers });
    }

    pub(super) fn finish_detach(&mut self, eni: &EniId, attachment: &AttachmentId, at: Duration) {
        let Some(e) = self.interfaces.get_mut(eni) else {
            return;
        };
        let Some(a) = e.attachment.take_if(|a| a.id == *attachment) else {
            return;
        };
        self.shadows.detached(eni, at);
        self.changes.push(Change::Detached {
            eni: eni.clone(),
            instance: a.instance,
        });
        self.refresh_guards();
    }

    fn finish_assign(&mut self, eni: EniId, net: IpNet) {
        let ours = self.unusable.remove(&(eni.clone(), net));
        if ours && self.interfaces.get(&eni).is_some_and(is_attached) {
            self.changes.push(Change::Added { eni, net });
        }
    }

    /// A new address or prefix of `eni`: the fabric follows after a delay, IMDS after its own delay.
    pub(super) fn arrive(&mut self, eni: &EniId, nets: &[IpNet], now: Duration) {
        for net in nets {
            self.unusable.insert((eni.clone(), *net));
            self.after(
                self.latency.usable,
                now,
                Timer::Usable {
                    eni: eni.clone(),
                    net: *net,
                },
            );
        }
        self.refresh_imds(eni, now);
    }

    /// An address or prefix is removed from `eni`: the fabric stops immediately.
    pub(super) fn depart(&mut self, eni: &EniId, nets: &[IpNet], now: Duration) {
        for net in nets {
            let delivered = !self.unusable.remove(&(eni.clone(), *net));
            if delivered && self.interfaces.get(eni).is_some_and(is_attached) {
                self.changes.push(Change::Removed {
                    eni: eni.clone(),
                    net: *net,
                });
            }
        }
        self.refresh_imds(eni, now);
    }

    pub(super) fn refresh_imds(&mut self, eni: &EniId, now: Duration) {
        if let Some(e) = self.interfaces.get(eni) {
            self.shadows.changed(e, now);
        }
    }

    /// Whether the fabric delivers `address` now: an attached interface owns it, and its delay has passed.
    #[must_use]
    pub fn usable(&self, address: std::net::IpAddr) -> bool {
        self.owner_of(address)
            .filter(|e| is_attached(e))
            .is_some_and(|e| {
                e.owned()
                    .iter()
                    .any(|n| n.contains(&address) && !self.unusable.contains(&(e.id.clone(), *n)))
            })
    }
}

fn is_attached(eni: &NetworkInterface) -> bool {
    eni.attachment
        .as_ref()
        .is_some_and(|a| a.state == AttachmentState::Attached)
}
