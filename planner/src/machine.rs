//! [`Planner::on`]: one event in, commands out.
//!
//! Every event is handled in three steps: apply what time has changed, apply what the event changed, then derive all
//! commands from the new state (`settle`). There is no list of pending work. What is to be done is read from the state
//! each time, so a lost or late answer can delay a step but never lose it.
//!
//! Each child module adds one concern to [`Planner`] as an `impl` block. A child may use the pool, the policy, the gates
//! and the waiting list. It must not know the daemon, and it must not do I/O.

mod answers;
mod closing;
mod counters;
mod describe;
mod failures;
mod groups;
mod grow;
mod lifecycle;
mod reconcile;
mod report;
mod restore;
mod shrink;
mod subnets;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use self::{describe::Describe, report::Obstacles, subnets::Subnets};
use crate::{
    Command, Config, EniClass, EniId, Event, InstanceType, Mono, Op, Placement, Pod, PodLimit,
    Refusal, Sandbox, Ticket,
    demand::DemandTracker,
    gate::{Action, Gates},
    limits,
    placement::NoClass,
    policy::{Flow, Policy, Stock},
    pool::{Key, Pool, block::SlotState, eni::Trust},
    rng::Rng,
    snapshot::Counters,
    waiting::Waiting,
};

/// The decision maker of one node. See the crate's documentation.
#[derive(Clone, Debug)]
pub struct Planner {
    config: Config,
    instance: InstanceType,
    policy: Policy,
    demand: DemandTracker,
    limit: PodLimit,
    placement: Placement,
    /// What new ENIs are like.
    class: Result<EniClass, NoClass>,
    subnets: Subnets,
    /// The pod limit counts the primary ENI.
    primary_served: bool,

    pool: Pool,
    waiting: Waiting,
    gates: Gates,
    ops: BTreeMap<Op, Pending>,
    next_op: u64,
    describe: Describe,
    tokens: Rng,

    /// ENIs attached here that the pool does not manage: they count against the limit and are never changed. The value is
    /// card and device.
    unmanaged: BTreeMap<EniId, (u16, u16)>,
    /// EC2 has reported at least once what is attached. Before that nothing is created or given back.
    inventoried: bool,
    schedulable: bool,
    stopping: bool,
    /// Since when there has been a surplus, and the smallest number of surplus blocks since then.
    surplus: Option<(Mono, u32)>,
    /// Since when a pool that sizes itself has had an ENI that it does not need.
    idle_eni: Option<Mono>,
    /// Since when a need for growth waits for the rest of its burst.
    gathering: Option<Mono>,
    /// What pods had to wait for.
    obstacles: Obstacles,
    counters: Counters,
    now: Mono,
}

/// A command without an answer yet.
#[derive(Clone, Debug)]
struct Pending {
    action: Action,
    /// `None` for Describe, which does not belong to an ENI.
    key: Option<Key>,
    sent: Mono,
}

impl Planner {
    /// A planner without any state. `seed` feeds jitter and client tokens. It must differ from start to start, otherwise
    /// EC2 would take a new create for a repetition of an old one.
    #[must_use]
    pub fn new(config: Config, instance: InstanceType, placement: Placement, seed: u64) -> Self {
        let serves = placement
            .class
            .as_ref()
            .is_ok_and(|class| class.primary_serves);
        let policy = Policy::new(&config, &instance, serves);
        let limit = limits::pod_limit(&instance, &config, serves);
        let mut planner = Self {
            demand: DemandTracker::new(policy.eni(), limit.addresses),
            policy,
            limit,
            config,
            instance,
            class: placement.class.clone(),
            subnets: Subnets::new(placement.subnets.clone(), Rng::new(seed, 3)),
            primary_served: serves,
            placement,
            pool: Pool::default(),
            waiting: Waiting::default(),
            gates: Gates::new(Rng::new(seed, 1)),
            ops: BTreeMap::new(),
            next_op: 1,
            describe: Describe::default(),
            tokens: Rng::new(seed, 2),
            unmanaged: BTreeMap::new(),
            inventoried: false,
            schedulable: true,
            stopping: false,
            surplus: None,
            idle_eni: None,
            gathering: None,
            obstacles: Obstacles::default(),
            counters: Counters::default(),
            now: Mono::ZERO,
        };
        planner.renew_closed();
        planner
    }

    /// Takes one event and returns what is to be done, in order. If `now` runs backwards, the last time is kept.
    pub fn on(&mut self, event: Event, now: Mono) -> Vec<Command> {
        self.now = self.now.max(now);
        let now = self.now;
        let mut out = Vec::new();
        self.begin();
        self.pool.end_cooldowns(now);
        self.overdue(now);
        let changes_enis = matches!(
            event,
            Event::Answered { .. } | Event::Inventory(_) | Event::Restore(_) | Event::Class(_)
        );
        match event {
            Event::Add {
                ticket,
                sandbox,
                pod,
                deadline,
            } => self.add(ticket, sandbox, pod, deadline, &mut out),
            Event::Cancel { ticket } => {
                self.waiting.drop_ticket(ticket);
            }
            Event::Wired { sandbox } => self.wired(&sandbox, &mut out),
            Event::Unwired { sandbox } => {
                if self.pool.unwired(&sandbox, now) {
                    self.waiting.requeue(&sandbox);
                }
            }
            Event::Left { sandbox } => self.left(&sandbox),
            Event::Answered { op, result } => self.answered(op, result),
            Event::Restore(restored) => self.restore(restored),
            Event::Inventory(list) => self.inventory(&list),
            Event::EniLinkGone { mac } => self.link_gone(mac),
            Event::HostClaims(claims) => self.pool.set_claims(claims),
            Event::Class(class) => self.renew_class(class),
            Event::Node {
                schedulable,
                stopping,
            } => {
                self.schedulable = schedulable;
                // Stopping is final, although news of the node may still come in while the daemon stops.
                self.stopping |= stopping;
            }
            Event::Tick => {}
        }
        if changes_enis {
            self.renew_closed();
        }
        self.settle(&mut out);
        out
    }

    /// Derives all commands from the state. The order matters: pods are served before a shortage is computed, growth is
    /// requested before a pod is refused, and nothing is given back that a waiting pod could use.
    fn settle(&mut self, out: &mut Vec<Command>) {
        self.renew_target();
        self.serve(out);
        if self.waiting.queued() > 0 {
            self.gates.hasten();
        }
        self.grow(out);
        self.note_obstacle();
        self.refuse(out);
        self.release_closed(out);
        self.regroup(out);
        self.shrink(out);
        self.advance(out);
        self.send_describe(out);
        self.send_subnets(out);
    }

    fn add(
        &mut self,
        ticket: Ticket,
        sandbox: Sandbox,
        pod: Pod,
        deadline: Mono,
        out: &mut Vec<Command>,
    ) {
        self.counters.adds += 1;
        let state = self
            .pool
            .place_of(&sandbox)
            .and_then(|place| self.pool.state_of(place));
        match state {
            Some(SlotState::Assigned) => self.grant_again(ticket, sandbox, out),
            // The outcome is known soon, and must be the same for both (ec2-and-faults §7 row 29).
            Some(_) => self
                .waiting
                .add_ticket(ticket, &sandbox, pod, deadline, self.now),
            None if self.stopping => self.turn_down(ticket, sandbox, Refusal::Stopping, out),
            None if self.waiting.is_queued(&sandbox) => {
                self.waiting.join(ticket, &sandbox, pod, deadline, self.now)
            }
            None if self.limited() + self.waiting.queued() >= self.limit.addresses => {
                let refusal = self.pod_limit_reached();
                self.turn_down(ticket, sandbox, refusal, out);
            }
            None => {
                let used = self.pool.held() + self.waiting.queued();
                self.demand.add(used, self.now);
                self.waiting.join(ticket, &sandbox, pod, deadline, self.now);
            }
        }
    }

    /// Updates the target that follows from the demand, if no other target is set.
    fn renew_target(&mut self) {
        self.demand.advance(self.now);
        if self.policy.own.is_some() {
            self.policy.own = Some(self.demand.target(self.now));
        }
    }

    fn left(&mut self, sandbox: &Sandbox) {
        let place = self.pool.place_of(sandbox);
        if !self.pool.left(sandbox, self.config.cooldown, self.now) {
            return;
        }
        self.waiting.requeue(sandbox);
        let eni = place.and_then(|place| self.pool.get(place.key));
        if eni.is_some_and(|eni| eni.trust != Trust::Sound) {
            // An ENI that EC2 no longer lists is given up when the last cooldown on it is over and EC2 has been asked once
            // more. By then the calls may be ten minutes apart, so ask sooner.
            self.describe.unsettled = 0;
            self.describe_after(self.config.cooldown);
        }
    }

    fn wired(&mut self, sandbox: &Sandbox, out: &mut Vec<Command>) {
        if self.pool.wired(sandbox, self.now) {
            for (ticket, _) in self
                .waiting
                .take(sandbox)
                .into_iter()
                .flat_map(|waiter| waiter.tickets)
            {
                self.grant_again(ticket, sandbox.clone(), out);
            }
        }
    }

    /// Answers a sandbox whose network is set up with the address that it has.
    fn grant_again(&mut self, ticket: Ticket, sandbox: Sandbox, out: &mut Vec<Command>) {
        let Some(place) = self.pool.place_of(&sandbox) else {
            return;
        };
        let Some(eni) = self.pool.get(place.key).and_then(|eni| eni.id.clone()) else {
            return;
        };
        self.counters.repeated += 1;
        out.push(Command::GrantAgain {
            ticket,
            sandbox,
            address: place.address,
            eni,
        });
    }

    /// Gives free addresses to waiting sandboxes, in order.
    fn serve(&mut self, out: &mut Vec<Command>) {
        while let Some((sandbox, waiter)) = self.waiting.first() {
            let (sandbox, pod) = (sandbox.clone(), waiter.pod.clone());
            let since = waiter.since;
            let Some(place) = self.pool.reserve(&sandbox, &pod, self.now) else {
                return;
            };
            let eni = self.pool.get(place.key);
            let named = eni.and_then(|eni| Some((eni.id.clone()?, eni.index?)));
            let (Some((eni, index)), Some(ticket)) = (named, self.waiting.serve_first()) else {
                return;
            };
            self.counters.grants += 1;
            out.push(Command::Grant {
                ticket,
                sandbox,
                pod,
                address: place.address,
                eni,
                index,
                waited_for: self.obstacles.met(since, self.now),
            });
        }
    }

    /// When [`Event::Tick`] is due, if no other event comes before. Always later than the last event's time.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        let ops = self
            .ops
            .values()
            .map(|pending| pending.sent + pending.action.patience());
        let enis = self.pool.enis().flat_map(|eni| self.deadlines_of(eni));
        let own = self.policy.own.is_some();
        let persist = if own {
            shrink::IDLE_ADDRESSES
        } else {
            shrink::SURPLUS_LASTS
        };
        let surplus = self.surplus.map(|(since, _)| since + persist);
        let idle_eni = self.idle_eni.map(|since| since + shrink::IDLE_ENI);
        let demand = self.demand.next_change(self.now).filter(|_| own);
        let gathered = self.gathering.map(|since| since + grow::GATHER);
        let moments = [
            self.pool.next_cooldown_end(),
            self.waiting.next_deadline(),
            self.describe.at.map(|at| at.max(self.describe.earliest())),
            self.subnets.next_deadline(),
            surplus,
            idle_eni,
            demand,
            gathered,
        ];
        moments
            .into_iter()
            .flatten()
            .chain(ops)
            .chain(enis)
            .chain(self.gates.openings())
            // What was due by now has been handled. Returning it again would make the caller spin.
            .filter(|moment| *moment > self.now)
            .min()
    }

    fn pending(&mut self, action: Action, key: Option<Key>) -> Op {
        let op = Op(self.next_op);
        self.next_op += 1;
        self.ops.insert(
            op,
            Pending {
                action,
                key,
                sent: self.now,
            },
        );
        op
    }

    /// Sandboxes that count towards the pod limit: those on ENIs that get more pods.
    fn limited(&self) -> u32 {
        self.pool.held().saturating_sub(self.pool.held_on_closed())
    }

    fn stock(&self) -> Stock {
        Stock::from(&self.pool.stock())
    }

    fn flow(&self) -> Flow {
        let incoming = self.pool.enis().map(|eni| self.incoming(eni)).sum();
        let warm = self.schedulable || self.config.manage_cordoned;
        Flow {
            incoming,
            waiting: self.waiting.queued(),
            warm,
        }
    }

    /// Whether the pool may make EC2 calls that change something.
    const fn may_change(&self) -> bool {
        self.config.provisioning && self.inventoried && !self.stopping
    }

    /// Free ENI slots of the instance.
    fn eni_room(&self) -> u16 {
        let card = self.instance.default_card;
        let ours = self.pool.enis().filter(|eni| eni.occupies()).count();
        let foreign = self
            .unmanaged
            .values()
            .filter(|(on, _)| *on == card)
            .count();
        let taken = u16::try_from(ours + foreign).unwrap_or(u16::MAX);
        self.instance.eni_cap(&self.config).saturating_sub(taken)
    }
}
