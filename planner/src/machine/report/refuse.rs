//! Refuses ADDs, and finds the cause that helps the operator most.

use std::time::Duration;

use crate::machine::Planner;
use crate::{
    Class, Command, Failure, Mono, Obstacle, PodLimit, Refusal, Sandbox, SubnetId, Ticket,
    gate::Gate,
    pool::{
        block::Block,
        eni::{Eni, Trust},
    },
    snapshot::Phase,
};

/// A failure message older than this no longer explains anything.
const TROUBLE_FRESH: Duration = Duration::from_secs(60);

/// How soon after a refusal for missing ENI slots EC2 is asked which ENIs hold them.
const DESCRIBE_AFTER_REFUSAL: Duration = Duration::from_secs(20);

impl Planner {
    /// Refuses every ADD whose deadline has passed, or that can never be served.
    pub(in crate::machine) fn refuse(&mut self, out: &mut Vec<Command>) {
        if self.stopping {
            while let Some(sandbox) = self.waiting.last() {
                self.dismiss(&sandbox, &Refusal::Stopping, out);
            }
        }
        while let Some(expired) = self.waiting.expire(self.now) {
            let waited = self.now.since(expired.since);
            let refusal = self.cause(&expired.sandbox, waited, self.now);
            self.turn_down(expired.ticket, expired.sandbox, refusal, out);
        }
        // The last ones in the queue are those that can never be served.
        while let Some(sandbox) = self.waiting.last().filter(|_| self.cannot_be_served()) {
            let refusal = self.final_refusal();
            if !self.unmanaged.is_empty() {
                // Slots of unmanaged ENIs are known from a list only, and no event comes when they become free.
                self.describe_after(DESCRIBE_AFTER_REFUSAL);
            }
            self.dismiss(&sandbox, &refusal, out);
        }
    }

    fn dismiss(&mut self, sandbox: &Sandbox, refusal: &Refusal, out: &mut Vec<Command>) {
        for (ticket, _) in self
            .waiting
            .take(sandbox)
            .into_iter()
            .flat_map(|waiter| waiter.tickets)
        {
            self.turn_down(ticket, sandbox.clone(), refusal.clone(), out);
        }
    }

    pub(in crate::machine) fn turn_down(
        &mut self,
        ticket: Ticket,
        sandbox: Sandbox,
        refusal: Refusal,
        out: &mut Vec<Command>,
    ) {
        self.counters.refused(&refusal);
        out.push(Command::Refuse {
            ticket,
            sandbox,
            refusal,
        });
    }

    pub(in crate::machine) fn pod_limit_reached(&self) -> Refusal {
        let PodLimit {
            addresses: limit,
            derivation: why,
        } = self.limit.clone();
        Refusal::PodLimit {
            limit,
            used: self.limited(),
            wait: self.waiting.queued(),
            why,
        }
    }

    /// More pods wait than could be served if the pool grew to its limit and all cooldowns were over: only another pod's
    /// end could help. Unknown until EC2 has reported what is attached.
    fn cannot_be_served(&self) -> bool {
        let held: u32 = self
            .pool
            .enis()
            .filter(|eni| eni.occupies() && eni.closed.is_none())
            .map(|eni| eni.counts().held)
            .sum();
        self.inventoried && held + self.waiting.queued() > self.potential()
    }

    /// The most addresses that this node could have at present.
    fn potential(&self) -> u32 {
        let unit = self.policy.unit.size();
        let slots = u32::from(self.instance.slots_per_eni());
        let enis = self
            .pool
            .enis()
            .filter(|eni| eni.occupies() && eni.closed.is_none());
        if !self.config.provisioning {
            // Quarantined addresses may become usable again.
            return enis
                .map(|eni| eni.counts().total() + eni.counts().quarantined)
                .sum();
        }
        let ours: u32 = enis
            .map(|eni| {
                let held: u32 = eni.blocks.values().map(Block::capacity).sum();
                let open = slots.saturating_sub(eni.taken().into());
                held + open * unit
            })
            .sum();
        let room = if self.gates.limit.shut(self.now) {
            0
        } else {
            // One that EC2 did not list and that gets no more pods may be gone.
            let gone =
                |eni: &Eni| eni.closed.is_some() && matches!(eni.trust, Trust::Missing { .. });
            let leaving = self
                .pool
                .enis()
                .filter(|eni| eni.occupies() && (departs(eni) || gone(eni)));
            self.eni_room() + u16::try_from(leaving.count()).unwrap_or(u16::MAX)
        };
        ours + u32::from(room) * slots * unit
    }

    fn final_refusal(&self) -> Refusal {
        if !self.config.provisioning {
            return Refusal::Fixed;
        }
        if self.limited() >= self.limit.addresses {
            self.pod_limit_reached()
        } else {
            self.eni_limit()
        }
    }

    fn eni_limit(&self) -> Refusal {
        let cap = self.instance.eni_cap(&self.config);
        let ours = self.pool.enis().filter(|eni| eni.occupies()).count();
        let foreign = self
            .unmanaged
            .values()
            .filter(|(card, _)| *card == self.instance.default_card)
            .count();
        let mut why = format!(
            "{} supports {cap} ENIs; {ours} are in the pool",
            self.instance.name
        );
        if foreign > 0 {
            why.push_str(&format!(", {foreign} are not managed by it"));
        }
        let closed = self.pool.enis().filter(|eni| eni.closed.is_some());
        let closed = closed.count();
        if closed > 0 {
            why.push_str(&format!(
                ", {closed} of them get no more pods, see `ipamd inspect`"
            ));
        }
        if self.gates.limit.explains(self.now) {
            why.push_str(", and EC2 refused one more");
        }
        why.push_str(&self.claimed());
        Refusal::EniLimit { why }
    }

    /// A remark on addresses that no pod can get, or nothing.
    fn claimed(&self) -> String {
        match self.totals().claimed {
            0 => String::new(),
            claimed => {
                format!("; {claimed} addresses are kept from pods by the host, see `ipamd inspect`")
            }
        }
    }

    /// Why no address came in time. The most specific cause wins: "throttled" would mislead the operator if IAM denies the
    /// call.
    pub(in crate::machine) fn cause(
        &self,
        sandbox: &Sandbox,
        waited: Duration,
        now: Mono,
    ) -> Refusal {
        if self.pool.place_of(sandbox).is_some() {
            return Refusal::Wiring { waited };
        }
        self.shortage(waited, now)
    }

    /// Why there is no free address.
    pub(in crate::machine) fn shortage(&self, waited: Duration, now: Mono) -> Refusal {
        let retry_in = |gate: &Gate| gate.until().since(now);
        let refusal = match self.obstacle(now) {
            Obstacle::PodLimit => Some(self.pod_limit_reached()),
            Obstacle::Denied | Obstacle::Refused => self
                .gates
                .refusals
                .explains(now)
                .map(|refused| refusal_of(&refused.failure, refused.retry_in(now)))
                .or_else(|| {
                    let (gate, failure) = self.refused_in_all(now)?;
                    Some(refusal_of(failure, retry_in(gate)))
                }),
            Obstacle::Throttled => {
                self.gates
                    .throttled
                    .explains(now)
                    .map(|gate| Refusal::Throttled {
                        retry_in: retry_in(gate),
                    })
            }
            Obstacle::SubnetExhausted => {
                self.exhausted()
                    .map(|(subnet, gate, all)| Refusal::Exhausted {
                        subnet,
                        others: all.saturating_sub(1),
                        since: now.since(gate.since()),
                        retry_in: retry_in(gate),
                    })
            }
            Obstacle::Inventory => Some(Refusal::Unreachable {
                message: "the list of this node's interfaces has not arrived yet".to_owned(),
                remedy: String::new(),
                retry_in: Duration::ZERO,
            }),
            Obstacle::NoSubnet => self.no_place().map(Refusal::NoSubnet),
            Obstacle::EniLimit => Some(self.eni_limit()),
            Obstacle::Unreachable => self.trouble(now).map(|failure| Refusal::Unreachable {
                message: failure.message.clone(),
                remedy: failure.remedy.clone(),
                retry_in: retry_in(&self.gates.transient).max(retry_in(&self.gates.host)),
            }),
            Obstacle::Create
            | Obstacle::Attach
            | Obstacle::Configure
            | Obstacle::Assign
            | Obstacle::Growth
            | Obstacle::Cooling => (!self.config.provisioning).then_some(Refusal::Fixed),
        };
        refusal.unwrap_or_else(|| Refusal::Empty {
            waited,
            growing: self.growing(),
        })
    }

    /// Notes what the waiting pods are waiting for.
    pub(in crate::machine) fn note_obstacle(&mut self) {
        if self.waiting.queued() > 0 {
            let obstacle = self.obstacle(self.now);
            self.obstacles.note(obstacle, self.now);
        }
    }

    /// Why a waiting pod has no address yet.
    fn obstacle(&self, now: Mono) -> Obstacle {
        if self.limited() >= self.limit.addresses {
            Obstacle::PodLimit
        } else if let Some(refused) = self.gates.refusals.explains(now) {
            match refused.denied() {
                Some(_) => Obstacle::Denied,
                None => Obstacle::Refused,
            }
        } else if self.gates.throttled.explains(now).is_some() {
            Obstacle::Throttled
        } else if let Some((_, failure)) = self.refused_in_all(now) {
            match failure.class {
                Class::Denied { .. } => Obstacle::Denied,
                _ => Obstacle::Refused,
            }
        } else if self.exhausted().is_some() {
            Obstacle::SubnetExhausted
        } else if !self.inventoried {
            Obstacle::Inventory
        } else if self.no_place().is_some() && self.eni_room() > 0 && !self.anything_coming() {
            Obstacle::NoSubnet
        } else if self.gates.limit.explains(now) && !self.anything_coming() {
            Obstacle::EniLimit
        } else if self.trouble(now).is_some() {
            Obstacle::Unreachable
        } else {
            self.nearest()
        }
    }

    /// The step that brings the next address. A later phase is nearer to its end.
    fn nearest(&self) -> Obstacle {
        let coming = |phase| self.pool.enis().any(|eni| eni.phase == phase);
        if self.pool.enis().any(|eni| eni.assign.is_some()) {
            Obstacle::Assign
        } else if coming(Phase::Configuring) {
            Obstacle::Configure
        } else if coming(Phase::Unattached) {
            Obstacle::Attach
        } else if coming(Phase::Creating) {
            Obstacle::Create
        } else if self.stock().cooling > 0 {
            Obstacle::Cooling
        } else {
            Obstacle::Growth
        }
    }

    /// The last failure without a more specific cause, if it is recent.
    fn trouble(&self, now: Mono) -> Option<&Failure> {
        let (at, failure) = self.gates.trouble.as_ref()?;
        (now.since(*at) < TROUBLE_FRESH).then_some(failure)
    }

    /// If no subnet gives addresses, and at least one of them has none: the one that is tried first, and how many subnets
    /// there are.
    fn exhausted(&self) -> Option<(SubnetId, &Gate, usize)> {
        let sources = self.sources();
        let all = sources.len();
        let mut empty = Vec::new();
        for (subnet, gate) in sources {
            let gate = gate?;
            if gate.exhausted.explains(self.now) {
                empty.push((subnet, &gate.exhausted));
            } else {
                gate.refusal(self.now)?;
            }
        }
        let first = empty.into_iter().min_by_key(|(_, gate)| gate.until());
        first.map(|(subnet, gate)| (subnet, gate, all))
    }

    /// If EC2 refuses new ENIs in every subnet: the refusal that is tried first.
    fn refused_in_all(&self, now: Mono) -> Option<(&Gate, &Failure)> {
        let sources = self.sources();
        let refused = sources.iter().map(|(_, gate)| {
            let gate = (*gate)?;
            Some((&gate.refused, gate.refusal(now)?))
        });
        let refused: Vec<_> = refused.collect::<Option<_>>()?;
        refused.into_iter().min_by_key(|(gate, _)| gate.until())
    }

    fn anything_coming(&self) -> bool {
        self.pool.enis().any(|eni| self.incoming(eni) > 0)
    }

    fn growing(&self) -> String {
        let coming = |phase| self.pool.enis().filter(|eni| eni.phase == phase).count();
        let (creating, attaching, configuring) = (
            coming(Phase::Creating),
            coming(Phase::Unattached),
            coming(Phase::Configuring),
        );
        let assigning = self.pool.enis().filter(|eni| eni.assign.is_some()).count();
        let cooling = self.stock().cooling;
        format!(
            "ENIs being created: {creating}, attached: {attaching}, brought up: {configuring}, given addresses: \
             {assigning}; {cooling} addresses are cooling down{}",
            self.claimed()
        )
    }
}

/// Whether it makes room for another ENI once its cooldowns are over.
fn departs(eni: &Eni) -> bool {
    eni.closed.is_some() && !eni.primary && eni.created_here && eni.counts().held == 0
}

fn refusal_of(failure: &Failure, retry_in: Duration) -> Refusal {
    match &failure.class {
        Class::Denied { action, why } => Refusal::Denied {
            action: action.clone(),
            why: why.clone(),
        },
        _ => Refusal::Refused {
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
            retry_in,
        },
    }
}
