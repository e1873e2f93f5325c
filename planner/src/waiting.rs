//! ADDs that have no answer yet, in the order of their arrival.
//!
//! A sandbox is queued until it gets an address. After that, tickets of repeated ADDs follow the reservation and share its
//! outcome. Owns no addresses, and does not decide the text of a refusal.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Mono, Pod, Sandbox, Ticket};

#[derive(Clone, Debug)]
pub(crate) struct Waiter {
    pub pod: Pod,
    pub since: Mono,
    pub tickets: Vec<(Ticket, Mono)>,
    /// Its place in the queue. `None` while it follows a reservation.
    place: Option<i64>,
}

/// A ticket whose deadline has passed.
#[derive(Clone, Debug)]
pub(crate) struct Expired {
    pub ticket: Ticket,
    pub sandbox: Sandbox,
    pub since: Mono,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Waiting {
    waiters: BTreeMap<Sandbox, Waiter>,
    queue: BTreeMap<i64, Sandbox>,
    tickets: BTreeMap<Ticket, (Mono, Sandbox)>,
    deadlines: BTreeSet<(Mono, Ticket)>,
    next: i64,
}

impl Waiting {
    /// Sandboxes that wait for an address.
    pub(crate) fn queued(&self) -> u32 {
        u32::try_from(self.queue.len()).unwrap_or(u32::MAX)
    }

    /// All tickets without an answer, including those that follow a reservation.
    #[cfg(test)]
    pub(crate) fn tickets(&self) -> usize {
        self.tickets.len()
    }

    pub(crate) fn is_queued(&self, sandbox: &Sandbox) -> bool {
        self.waiters
            .get(sandbox)
            .is_some_and(|waiter| waiter.place.is_some())
    }

    /// Queues a sandbox, or adds a ticket to a sandbox that already waits.
    pub(crate) fn join(
        &mut self,
        ticket: Ticket,
        sandbox: &Sandbox,
        pod: Pod,
        deadline: Mono,
        now: Mono,
    ) {
        if !self.waiters.contains_key(sandbox) {
            let place = self.next;
            self.next += 1;
            self.queue.insert(place, sandbox.clone());
            let waiter = Waiter {
                pod: pod.clone(),
                since: now,
                tickets: Vec::new(),
                place: Some(place),
            };
            self.waiters.insert(sandbox.clone(), waiter);
        }
        self.add_ticket(ticket, sandbox, pod, deadline, now);
    }

    /// Adds a ticket that gets the result of a reservation.
    pub(crate) fn add_ticket(
        &mut self,
        ticket: Ticket,
        sandbox: &Sandbox,
        pod: Pod,
        deadline: Mono,
        now: Mono,
    ) {
        let waiter = self.waiters.entry(sandbox.clone());
        let waiter = waiter.or_insert_with(|| Waiter {
            pod,
            since: now,
            tickets: Vec::new(),
            place: None,
        });
        waiter.tickets.push((ticket, deadline));
        self.tickets.insert(ticket, (deadline, sandbox.clone()));
        self.deadlines.insert((deadline, ticket));
    }

    /// The sandbox that has waited longest.
    pub(crate) fn first(&self) -> Option<(&Sandbox, &Waiter)> {
        let sandbox = self.queue.values().next()?;
        Some((sandbox, self.waiters.get(sandbox)?))
    }

    /// The last sandbox in the queue.
    pub(crate) fn last(&self) -> Option<Sandbox> {
        self.queue.values().next_back().cloned()
    }

    /// The first in the queue has an address: its oldest ticket gets the grant, the others follow the reservation.
    pub(crate) fn serve_first(&mut self) -> Option<Ticket> {
        let (_, sandbox) = self.queue.pop_first()?;
        let waiter = self.waiters.get_mut(&sandbox)?;
        waiter.place = None;
        let (ticket, _) = *waiter.tickets.first()?;
        self.drop_ticket(ticket);
        Some(ticket)
    }

    /// The reservation failed: the tickets that followed it need an address of their own. They came before everyone in the
    /// queue.
    pub(crate) fn requeue(&mut self, sandbox: &Sandbox) {
        if let Some(waiter) = self
            .waiters
            .get_mut(sandbox)
            .filter(|waiter| waiter.place.is_none())
        {
            let place = self.queue.keys().next().map_or(self.next, |first| *first) - 1;
            waiter.place = Some(place);
            self.queue.insert(place, sandbox.clone());
        }
    }

    /// Removes a sandbox with all its tickets.
    pub(crate) fn take(&mut self, sandbox: &Sandbox) -> Option<Waiter> {
        let waiter = self.waiters.remove(sandbox)?;
        if let Some(place) = waiter.place {
            self.queue.remove(&place);
        }
        for (ticket, deadline) in &waiter.tickets {
            self.tickets.remove(ticket);
            self.deadlines.remove(&(*deadline, *ticket));
        }
        Some(waiter)
    }

    /// Forgets one ticket. A sandbox without tickets no longer waits.
    pub(crate) fn drop_ticket(&mut self, ticket: Ticket) -> Option<Sandbox> {
        let (deadline, sandbox) = self.tickets.remove(&ticket)?;
        self.deadlines.remove(&(deadline, ticket));
        let waiter = self.waiters.get_mut(&sandbox)?;
        waiter.tickets.retain(|(other, _)| *other != ticket);
        if waiter.tickets.is_empty() {
            self.take(&sandbox);
        }
        Some(sandbox)
    }

    /// The next ticket whose deadline has passed.
    pub(crate) fn expire(&mut self, now: Mono) -> Option<Expired> {
        let (_, ticket) = *self
            .deadlines
            .first()
            .filter(|(deadline, _)| *deadline <= now)?;
        let (_, sandbox) = self.tickets.get(&ticket)?;
        let since = self.waiters.get(sandbox).map_or(now, |waiter| waiter.since);
        let sandbox = self.drop_ticket(ticket)?;
        Some(Expired {
            ticket,
            sandbox,
            since,
        })
    }

    pub(crate) fn next_deadline(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn sandboxes(&self) -> impl Iterator<Item = (&Sandbox, &Waiter)> {
        self.waiters.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sandbox(n: u32) -> Sandbox {
        Sandbox {
            network: "hawser".into(),
            container_id: format!("c{n}"),
            ifname: "eth0".into(),
        }
    }

    fn at(s: u64) -> Mono {
        Mono::from_epoch(Duration::from_secs(s))
    }

    #[test]
    fn tickets_are_served_in_order_and_repetitions_follow() {
        let mut waiting = Waiting::default();
        waiting.join(Ticket(1), &sandbox(1), Pod::default(), at(60), at(0));
        waiting.join(Ticket(2), &sandbox(2), Pod::default(), at(60), at(1));
        waiting.join(Ticket(3), &sandbox(1), Pod::default(), at(60), at(2));
        assert_eq!((waiting.queued(), waiting.tickets()), (2, 3));
        assert_eq!(waiting.serve_first(), Some(Ticket(1)));
        assert_eq!(waiting.first().map(|(s, _)| s.clone()), Some(sandbox(2)));
        waiting.requeue(&sandbox(1));
        assert_eq!(
            waiting.first().map(|(s, _)| s.clone()),
            Some(sandbox(1)),
            "a failed reservation keeps its turn"
        );
        assert_eq!(waiting.serve_first(), Some(Ticket(3)));
        assert_eq!((waiting.queued(), waiting.tickets()), (1, 1));
    }

    #[test]
    fn each_ticket_has_its_own_deadline() {
        let mut waiting = Waiting::default();
        waiting.join(Ticket(1), &sandbox(1), Pod::default(), at(10), at(0));
        waiting.join(Ticket(2), &sandbox(1), Pod::default(), at(20), at(0));
        assert_eq!(waiting.expire(at(15)).map(|e| e.ticket), Some(Ticket(1)));
        assert!(waiting.expire(at(15)).is_none() && waiting.is_queued(&sandbox(1)));
        assert_eq!(waiting.expire(at(20)).map(|e| e.ticket), Some(Ticket(2)));
        assert_eq!((waiting.queued(), waiting.next_deadline()), (0, None));
    }
}
