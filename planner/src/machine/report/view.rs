//! Reads the planner's state: limits, totals and the snapshot for people.

use crate::machine::Planner;
use crate::{
    Demand, EniId, Mono, PodLimit, Snapshot,
    gate::Gates,
    pool::{
        block::{Block, Slot, SlotState},
        eni::{Eni, Trust},
    },
    snapshot::{
        AddressState, AddressView, Counters, EniView, SubnetView, Targets, Totals, WaitingView,
    },
};

impl Planner {
    /// A copy of the whole state. It visits every address: for people and scrapes, not for every event.
    #[must_use]
    pub fn snapshot(&self, now: Mono) -> Snapshot {
        let left = |until: Mono| Some(until.since(now)).filter(|left| !left.is_zero());
        let gates = &self.gates;
        let subnets = gates.subnets.iter().map(|(subnet, gate)| SubnetView {
            subnet: subnet.clone(),
            exhausted_for: left(gate.exhausted.until()),
            fragmented_for: left(gate.fragmented.until()),
            refused_for: Gates::refused_for(gate, now),
        });
        let everywhere = self.refused_everywhere(now);
        let in_subnets: Vec<_> = gates.refused_subnets(now, everywhere).collect();
        let mut refused: Vec<_> = gates.refusals.views(now).collect();
        // A denial in one subnet of several keeps nobody waiting.
        let denials = refused
            .iter()
            .chain(in_subnets.iter().filter(|_| everywhere));
        let denied = denials.filter_map(|view| {
            let name = view.denied.clone()?;
            (!view.retry_in.is_zero()).then_some((name, view.retry_in))
        });
        let denied: Vec<_> = denied.collect();
        refused.extend(in_subnets);
        Snapshot {
            at: now,
            enis: self.pool.enis().map(EniView::from).collect(),
            unmanaged: self.unmanaged_ids(),
            waiting: self.waiting_views(now),
            limit: self.pod_limit().clone(),
            subnets: subnets.collect(),
            places: self.places_view(),
            totals: self.totals(),
            targets: self.targets(),
            demand: self.demand(now),
            denied,
            refused,
            throttled_for: left(gates.throttled.until()),
            inventoried: self.inventoried,
            schedulable: self.schedulable,
            stopping: self.stopping,
            calls: self.calls(),
            decision: self.decision(now),
            counters: self.counters(),
        }
    }

    /// The pod limit and its calculation.
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
            totals.claimed += counts.claimed;
            totals.prefixes += counts.prefixes;
            if eni.trust == Trust::Sound {
                match eni.closed {
                    None => totals.free += counts.free,
                    Some(_) => totals.withheld += counts.free,
                }
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

    /// The difference to the warm targets.
    #[must_use]
    pub fn targets(&self) -> Targets {
        let stock = self.stock();
        Targets {
            short: self.policy.short(&stock, &self.flow()).addresses,
            over: self.policy.over(&stock),
        }
    }

    /// The learnt demand of the pods.
    fn demand(&self, now: Mono) -> Demand {
        self.demand.learnt(now)
    }

    fn unmanaged_ids(&self) -> Vec<EniId> {
        self.unmanaged.keys().cloned().collect()
    }

    fn waiting_views(&self, now: Mono) -> Vec<WaitingView> {
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

impl From<&Eni> for EniView {
    fn from(eni: &Eni) -> Self {
        let missing = eni.trust != Trust::Sound;
        let prefixes = eni
            .blocks
            .values()
            .filter(|block| block.is_prefix())
            .map(|block| block.net)
            .collect();
        let slots = eni
            .blocks
            .values()
            .flat_map(|block| block.slots.iter().map(move |slot| (block, slot)));
        Self {
            id: eni.id.clone(),
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            subnet_cidr: eni.subnet_cidr,
            security_groups: eni.groups.clone(),
            primary_address: eni.address,
            attachment: eni.attachment.clone(),
            card: eni.card,
            device: eni.device,
            index: eni.index,
            primary: eni.primary,
            phase: eni.phase,
            phase_since: eni.phase_since,
            usable: eni.usable(),
            closed: eni.closed.map(|(why, _)| why),
            missing,
            prefixes,
            addresses: slots
                .map(|(block, slot)| AddressView::of(block, slot, missing))
                .collect(),
        }
    }
}

impl AddressView {
    fn of(block: &Block, slot: &Slot, missing: bool) -> Self {
        let until = match slot.state {
            SlotState::Cooling { until } => Some(until),
            _ => None,
        };
        let state = match slot.state {
            _ if block.releasing => AddressState::Releasing,
            _ if missing || block.doubt.is_some() => AddressState::Quarantined,
            SlotState::Free if slot.claim.is_some() => AddressState::Quarantined,
            SlotState::Free => AddressState::Free,
            SlotState::Reserved => AddressState::Reserved,
            SlotState::Assigned => AddressState::Assigned,
            SlotState::Cooling { .. } => AddressState::Cooling,
        };
        let (sandbox, pod) = slot
            .holder
            .as_ref()
            .map(|h| (h.sandbox.clone(), h.pod.clone()))
            .unzip();
        let prefix = block.is_prefix().then_some(block.net);
        Self {
            address: slot.address,
            state,
            since: slot.since,
            prefix,
            sandbox,
            pod,
            until,
            claim: slot.claim,
        }
    }
}
