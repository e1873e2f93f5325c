//! Back-off after failures: which calls must wait, until when, and why.
//!
//! A gate does not decide what to call. It only says "not yet". Each gate shuts one thing (the account, an action, a
//! subnet), so that a failure stops only calls of its own kind.
//!
//! May use `rng` and the kinds of failures. Must not know commands or the pool.

mod action;
pub(crate) mod pace;
mod refusals;
mod subnet;

use std::{collections::BTreeMap, time::Duration};

pub use self::action::Action;
use self::pace::Pace;
pub(crate) use self::{refusals::Refusals, subnet::SubnetGate};
use crate::{
    Class, Mono, SubnetId,
    event::{Failure, Rest},
    rng::Rng,
};

/// For this long after a gate has opened again its cause is still reported: the retry may be in progress.
const RECENT: Duration = Duration::from_secs(60);

/// While a pod waits, no gate stays shut for longer than this. Once the cause has passed, the pod is served within thirty
/// seconds, including the ten seconds that a new ENI takes. Throttling keeps its own pace, which protects the account.
const HASTE: Duration = Duration::from_secs(15);

/// One back-off. Closed while `now < until`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gate {
    until: Mono,
    tries: u32,
    /// When the current row of failures began.
    since: Mono,
    /// When it was last closed.
    shut_at: Mono,
}

impl Gate {
    /// Shuts the gate after a failure. Failures that arrive while it is shut belong to calls sent before. They do not
    /// lengthen the back-off, otherwise ten parallel calls would count as ten rounds.
    pub(crate) fn hit(&mut self, pace: Pace, rng: &mut Rng, now: Mono) {
        if self.tries == 0 {
            self.since = now;
        }
        if self.shut(now) {
            return;
        }
        let delay = pace
            .first
            .saturating_mul(1 << self.tries.min(16))
            .min(pace.cap);
        self.tries += 1;
        self.until = now + rng.jitter(delay);
        self.shut_at = now;
    }

    /// Shuts the gate for as long as the caller says.
    fn hold(&mut self, wait: Duration, now: Mono) {
        if self.tries == 0 {
            self.since = now;
        }
        self.tries = self.tries.saturating_add(1);
        self.until = self.until.max(now + wait);
    }

    /// A pod waits: the next try comes soon, however many failures there were.
    fn hasten(&mut self) {
        self.until = self.until.min(self.shut_at + HASTE);
    }

    /// A success ends the row of failures, unless it belongs to a call sent before the gate was shut.
    pub(crate) const fn pass(&mut self, now: Mono) {
        if !self.shut(now) {
            self.tries = 0;
        }
    }

    pub(crate) const fn shut(&self, now: Mono) -> bool {
        now.since_epoch().as_nanos() < self.until.since_epoch().as_nanos()
    }

    /// Whether this gate explains why no address came: it is shut, or it opened so recently that the retry has no answer
    /// yet.
    pub(crate) fn explains(&self, now: Mono) -> bool {
        self.tries > 0 && now < self.until + RECENT
    }

    pub(crate) const fn until(&self) -> Mono {
        self.until
    }

    pub(crate) const fn since(&self) -> Mono {
        self.since
    }
}

/// Throttling by action. EC2 has a token bucket for each action, so one throttled action says nothing about the others.
#[derive(Clone, Debug, Default)]
pub(crate) struct Throttling(BTreeMap<Action, Gate>);

impl Throttling {
    pub(crate) fn shut(&self, action: Action, now: Mono) -> bool {
        self.0.get(&action).is_some_and(|gate| gate.shut(now))
    }

    /// Whether EC2 throttled the last call of this action, even if the gate is open again for the next try.
    pub(crate) fn stuck(&self, action: Action) -> bool {
        self.0.get(&action).is_some_and(|gate| gate.tries > 0)
    }

    /// The gate that explains why growth waits. If there are several, the one that opens last.
    pub(crate) fn explains(&self, now: Mono) -> Option<&Gate> {
        Action::GROWTH
            .iter()
            .filter_map(|action| self.0.get(action))
            .filter(|gate| gate.explains(now))
            .max_by_key(|gate| gate.until())
    }

    /// When the last one opens.
    pub(crate) fn until(&self) -> Mono {
        self.0.values().map(Gate::until).max().unwrap_or_default()
    }
}

/// All gates.
#[derive(Clone, Debug)]
pub(crate) struct Gates {
    pub(crate) throttled: Throttling,
    pub(crate) transient: Gate,
    pub(crate) limit: Gate,
    pub(crate) host: Gate,
    /// What EC2 refuses, IAM's denials included.
    pub(crate) refusals: Refusals,
    pub(crate) subnets: BTreeMap<SubnetId, SubnetGate>,
    /// The last failure that has no more specific cause.
    pub(crate) trouble: Option<(Mono, Failure)>,
    rng: Rng,
}

impl Gates {
    pub(crate) const fn new(rng: Rng) -> Self {
        Self {
            throttled: Throttling(BTreeMap::new()),
            transient: Gate {
                until: Mono::ZERO,
                tries: 0,
                since: Mono::ZERO,
                shut_at: Mono::ZERO,
            },
            limit: Gate {
                until: Mono::ZERO,
                tries: 0,
                since: Mono::ZERO,
                shut_at: Mono::ZERO,
            },
            host: Gate {
                until: Mono::ZERO,
                tries: 0,
                since: Mono::ZERO,
                shut_at: Mono::ZERO,
            },
            refusals: Refusals::new(),
            subnets: BTreeMap::new(),
            trouble: None,
            rng,
        }
    }

    /// Whether `action` may be called now, as far as the account and IAM are concerned.
    pub(crate) fn open(&self, action: Action, now: Mono) -> bool {
        action.on_host()
            || !(self.throttled.shut(action, now)
                || self.transient.shut(now)
                || self.refusals.shut(action, now))
    }

    /// A failure's effect beyond the object that the call was about. For subnets, see `subnet.rs`.
    pub(crate) fn failed(&mut self, action: Action, failure: &Failure, now: Mono) {
        match &failure.class {
            Class::Throttled { retry_after } => {
                let gate = self.throttled.0.entry(action).or_default();
                match retry_after {
                    // The daemon's limiter paces the calls. A second back-off on top of it would leave the account's
                    // bucket idle (docs/fleet.md).
                    Some(wait) => gate.hold(*wait, now),
                    None => gate.hit(pace::THROTTLED, &mut self.rng, now),
                }
            }
            Class::Transient => {
                self.transient.hit(pace::TRANSIENT, &mut self.rng, now);
                self.trouble = Some((now, failure.clone()));
            }
            Class::Denied { .. } => self.refuse(action, failure, pace::DENIED, now),
            Class::Refused(Rest::Long) => self.refuse(action, failure, pace::REFUSED, now),
            Class::Refused(Rest::Short) => self.refuse(action, failure, pace::TRANSIENT, now),
            Class::Host => {
                self.host.hit(pace::HOST, &mut self.rng, now);
                self.trouble = Some((now, failure.clone()));
            }
            Class::Limit | Class::Ambiguous | Class::NotFound | Class::InUse => {
                self.trouble = Some((now, failure.clone()));
            }
            Class::Exhausted | Class::Fragmented => {}
        }
    }

    /// EC2 refuses `action`. Only this action rests.
    pub(crate) fn refuse(&mut self, action: Action, failure: &Failure, pace: Pace, now: Mono) {
        self.refusals.add(action, failure, pace, &mut self.rng, now);
    }

    pub(crate) fn passed(&mut self, action: Action, now: Mono) {
        if action.on_host() {
            self.host.pass(now);
            return;
        }
        if let Some(gate) = self.throttled.0.get_mut(&action) {
            gate.pass(now);
        }
        self.transient.pass(now);
        self.refusals.pass(action, now);
    }

    /// An ENI could not be brought up. The next one may fail as well.
    pub(crate) fn hit_host(&mut self, now: Mono) {
        self.host.hit(pace::HOST, &mut self.rng, now);
    }

    pub(crate) fn hit_limit(&mut self, now: Mono) {
        self.limit.hit(pace::LIMIT, &mut self.rng, now);
    }

    /// Pods wait: shortens the back-off of all gates except throttling.
    pub(crate) fn hasten(&mut self) {
        let subnets = self.subnets.values_mut();
        let subnets = subnets.flat_map(|gate| [&mut gate.exhausted, &mut gate.refused]);
        let refused = self.refusals.gates_mut();
        let account = [&mut self.transient, &mut self.limit, &mut self.host];
        for gate in account.into_iter().chain(refused).chain(subnets) {
            gate.hasten();
        }
    }

    /// A delay with jitter for the next try of one ENI.
    pub(crate) fn delay(&mut self, pace: Pace, tries: u32) -> Duration {
        let full = pace.first.saturating_mul(1 << tries.min(16)).min(pace.cap);
        self.rng.jitter(full)
    }

    /// All times at which a gate opens.
    pub(crate) fn openings(&self) -> impl Iterator<Item = Mono> + '_ {
        let subnets = self
            .subnets
            .values()
            .flat_map(|gate| [&gate.exhausted, &gate.fragmented, &gate.refused].map(Gate::until));
        let throttled = self.throttled.0.values().map(Gate::until);
        [&self.transient, &self.limit, &self.host]
            .into_iter()
            .map(Gate::until)
            .chain(throttled)
            .chain(self.refusals.openings())
            .chain(subnets)
    }
}

#[cfg(test)]
mod tests;
