//! What EC2 refuses: for each action the last refusal, and how long the action rests.
//!
//! A refusal stays known until the action succeeds, so that people can be told of it at any time.

use std::{collections::BTreeMap, time::Duration};

use super::{Action, Gate, pace::Pace};
use crate::{Class, Mono, event::Failure, rng::Rng, snapshot::RefusedView};

/// The last refusal of one action.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub(crate) gate: Gate,
    pub(crate) failure: Failure,
    at: Mono,
}

/// The refused actions.
#[derive(Clone, Debug)]
pub(crate) struct Refusals(BTreeMap<Action, Refused>);

impl Refusals {
    pub(crate) const fn new() -> Self {
        Self(BTreeMap::new())
    }

    pub(super) fn add(
        &mut self,
        action: Action,
        failure: &Failure,
        pace: Pace,
        rng: &mut Rng,
        now: Mono,
    ) {
        let refused = self.0.entry(action).or_insert_with(|| Refused {
            gate: Gate::default(),
            failure: failure.clone(),
            at: now,
        });
        refused.failure.clone_from(failure);
        refused.at = now;
        refused.gate.hit(pace, rng, now);
    }

    /// The action succeeded. A success that belongs to an earlier call changes nothing.
    pub(super) fn pass(&mut self, action: Action, now: Mono) {
        if self
            .0
            .get(&action)
            .is_some_and(|refused| !refused.gate.shut(now))
        {
            self.0.remove(&action);
        }
    }

    pub(crate) fn shut(&self, action: Action, now: Mono) -> bool {
        self.0
            .get(&action)
            .is_some_and(|refused| refused.gate.shut(now))
    }

    pub(super) fn gates_mut(&mut self) -> impl Iterator<Item = &mut Gate> {
        self.0.values_mut().map(|refused| &mut refused.gate)
    }

    pub(super) fn openings(&self) -> impl Iterator<Item = Mono> + '_ {
        self.0.values().map(|refused| refused.gate.until())
    }

    /// The refusal that explains why growth waits. A denial first: it names the action that must be allowed.
    pub(crate) fn explains(&self, now: Mono) -> Option<&Refused> {
        let recent = |action| {
            self.0
                .get(&action)
                .filter(|refused| refused.gate.explains(now))
        };
        let mut found = Action::GROWTH.into_iter().filter_map(recent);
        let denied = found.clone().find(|refused| refused.denied().is_some());
        denied.or_else(|| found.next())
    }

    /// For people.
    pub(crate) fn views(&self, now: Mono) -> impl Iterator<Item = RefusedView> + '_ {
        self.0.iter().map(move |(action, refused)| RefusedView {
            action: action.api(),
            denied: refused.denied().map(str::to_owned),
            message: refused.failure.message.clone(),
            remedy: refused.failure.remedy.clone(),
            at: refused.at,
            retry_in: refused.retry_in(now),
            stops_growth: Action::GROWTH.contains(action),
        })
    }
}

impl Refused {
    /// The action that IAM denies.
    pub(crate) fn denied(&self) -> Option<&str> {
        match &self.failure.class {
            Class::Denied { action, .. } => Some(action),
            _ => None,
        }
    }

    pub(crate) fn retry_in(&self, now: Mono) -> Duration {
        self.gate.until().since(now)
    }
}
