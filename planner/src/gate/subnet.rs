//! What is known about one subnet: no free address, no free /28, or EC2 refuses to create ENIs in it. Each keeps calls for
//! this subnet back, and no others.

use std::time::Duration;

use super::{Gate, Gates, action::Action, pace, pace::Pace};
use crate::{Class, Mono, SubnetId, event::Failure, snapshot::RefusedView};

/// The state of one subnet.
#[derive(Clone, Debug, Default)]
pub(crate) struct SubnetGate {
    pub(crate) exhausted: Gate,
    pub(crate) fragmented: Gate,
    /// EC2 refuses to create ENIs in this subnet, although it may create them in others.
    pub(crate) refused: Gate,
    /// The last refusal, until an ENI was created here.
    pub(super) refusal: Option<(Mono, Failure)>,
    /// The most to request in one call while the subnet is scarce: halved by refusals, doubled by successes.
    pub(crate) cap: Option<u32>,
}

impl SubnetGate {
    /// The refusal that explains why no ENI is created here.
    pub(crate) fn refusal(&self, now: Mono) -> Option<&Failure> {
        let (_, failure) = self.refusal.as_ref()?;
        self.refused.explains(now).then_some(failure)
    }

    /// For people.
    fn view(&self, now: Mono, stops_growth: bool) -> Option<RefusedView> {
        let (at, failure) = self.refusal.as_ref()?;
        Some(RefusedView {
            action: Action::Create.api(),
            denied: match &failure.class {
                Class::Denied { action, .. } => Some(action.clone()),
                _ => None,
            },
            message: failure.message.clone(),
            remedy: failure.remedy.clone(),
            at: *at,
            retry_in: self.refused.until().since(now),
            stops_growth,
        })
    }
}

impl Gates {
    /// The subnet refused `asked` addresses. Request half at once, and wait only when a single one is refused.
    pub(crate) fn scarce(&mut self, subnet: &SubnetId, asked: u32, now: Mono) {
        let gate = self.subnets.entry(subnet.clone()).or_default();
        if asked > 1 {
            let half = asked / 2;
            gate.cap = Some(gate.cap.map_or(half, |cap| cap.min(half)));
            if gate.exhausted.tries == 0 {
                gate.exhausted.since = now;
            }
        } else {
            gate.cap = Some(1);
            gate.exhausted.hit(pace::EXHAUSTED, &mut self.rng, now);
        }
    }

    pub(crate) fn fragmented(&mut self, subnet: &SubnetId, now: Mono) {
        self.subnets
            .entry(subnet.clone())
            .or_default()
            .fragmented
            .hit(pace::FRAGMENTED, &mut self.rng, now);
    }

    /// EC2 refuses to create an ENI in this subnet. Only this subnet rests.
    pub(crate) fn refuse_in(
        &mut self,
        subnet: &SubnetId,
        failure: &Failure,
        pace: Pace,
        now: Mono,
    ) {
        let gate = self.subnets.entry(subnet.clone()).or_default();
        gate.refusal = Some((now, failure.clone()));
        gate.refused.hit(pace, &mut self.rng, now);
    }

    /// An ENI was created in the subnet.
    pub(crate) fn created_in(&mut self, subnet: &SubnetId) {
        if let Some(gate) = self.subnets.get_mut(subnet) {
            gate.refused = Gate::default();
            gate.refusal = None;
        }
    }

    /// The subnet gave what was requested. Request more next time, until there is no cap.
    pub(crate) fn plentiful(&mut self, subnet: &SubnetId, most: u32, prefixes: bool, now: Mono) {
        if let Some(gate) = self.subnets.get_mut(subnet) {
            gate.exhausted.pass(now);
            if prefixes {
                gate.fragmented.pass(now);
            }
            gate.cap = gate
                .cap
                .map(|cap| cap.saturating_mul(2))
                .filter(|cap| *cap < most);
        }
    }

    pub(crate) fn exhausted(&self, subnet: &SubnetId, now: Mono) -> bool {
        self.subnets
            .get(subnet)
            .is_some_and(|gate| gate.exhausted.shut(now))
    }

    pub(crate) fn is_fragmented(&self, subnet: &SubnetId, now: Mono) -> bool {
        self.subnets
            .get(subnet)
            .is_some_and(|gate| gate.fragmented.shut(now))
    }

    /// Whether EC2 refuses new ENIs in this subnet.
    pub(crate) fn refused_in(&self, subnet: &SubnetId, now: Mono) -> bool {
        self.subnets
            .get(subnet)
            .is_some_and(|gate| gate.refused.shut(now))
    }

    pub(crate) fn cap(&self, subnet: &SubnetId) -> Option<u32> {
        self.subnets.get(subnet).and_then(|gate| gate.cap)
    }

    /// What EC2 refuses in single subnets. `stops_growth`: no subnet is left.
    pub(crate) fn refused_subnets(
        &self,
        now: Mono,
        stops_growth: bool,
    ) -> impl Iterator<Item = RefusedView> + '_ {
        self.subnets
            .values()
            .filter_map(move |gate| gate.view(now, stops_growth))
    }

    /// How long EC2 refuses new ENIs in this subnet.
    pub(crate) fn refused_for(gate: &SubnetGate, now: Mono) -> Option<Duration> {
        Some(gate.refused.until().since(now)).filter(|left| !left.is_zero())
    }
}
