//! What others may read of the planner's state.

use super::Planner;
use crate::{
    Demand, EniId, Mono, PodLimit,
    gate::Gates,
    pool::{Pool, eni::Trust},
    snapshot::{Counters, Targets, Totals, WaitingView},
};

impl Planner {
    /// The pod limit and its derivation.
    #[must_use]
    pub const fn pod_limit(&self) -> &PodLimit {
        &self.limit
    }

    /// Events since the start.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Addresses by state. Cheap: a sum over ENIs.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals {
            max_enis: self.instance.eni_cap(&self.config).into(),
            incoming: self.flow().incoming,
            waiting: self.waiting.queued(),
            ..Totals::default()
        };
        for eni in self.pool.enis() {
            let counts = eni.counts();
            totals.enis += u32::from(eni.id.is_some());
            totals.releasing += counts.releasing;
            totals.prefixes += counts.prefixes;
            if eni.trust == Trust::Sound {
                totals.free += counts.free;
                totals.reserved += counts.reserved;
                totals.assigned += counts.assigned;
                totals.cooling += counts.cooling;
                totals.quarantined += counts.quarantined;
            } else {
                totals.quarantined += counts.total() + counts.quarantined;
            }
        }
        totals
    }

    /// Distance from the warm targets.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let stock = self.stock();
        Targets {
            short: self.policy.short(&stock, &self.flow()).addresses,
            over: self.policy.over(&stock),
        }
    }

    /// What was learnt of the pods' demand.
    pub(crate) fn demand(&self, now: Mono) -> Demand {
        self.demand.learnt(now)
    }

    pub(crate) const fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(crate) const fn gates(&self) -> &Gates {
        &self.gates
    }

    pub(crate) const fn is_inventoried(&self) -> bool {
        self.inventoried
    }

    pub(crate) const fn is_schedulable(&self) -> bool {
        self.schedulable
    }

    pub(crate) const fn is_stopping(&self) -> bool {
        self.stopping
    }

    pub(crate) fn unmanaged_ids(&self) -> Vec<EniId> {
        self.unmanaged.keys().cloned().collect()
    }

    pub(crate) fn waiting_views(&self, now: Mono) -> Vec<WaitingView> {
        let views = self.waiting.sandboxes();
        let mut views: Vec<_> = views
            .map(|(sandbox, waiter)| WaitingView {
                sandbox: sandbox.clone(),
                pod: waiter.pod.clone(),
                since: waiter.since,
                cause: self.cause(sandbox, now.since(waiter.since), now),
            })
            .collect();
        views.sort_by_key(|view| view.since);
        views
    }
}
