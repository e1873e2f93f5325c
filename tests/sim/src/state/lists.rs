//! EC2's lists as seen by a caller: a recent state of each ENI, not all from the same time (ec2-and-faults §3.5: reads
//! lag, miss new objects, show deleted ones, and go backwards from one call to the next).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use vpc_sim::{World, ids::EniId, world::model::NetworkInterface};

use vpc_sim::random::Rng;

/// The maximum age of a list.
const OLDEST: Duration = Duration::from_secs(40);

type Moment = BTreeMap<EniId, NetworkInterface>;

/// The recent states of all ENIs.
#[derive(Debug)]
pub struct Lists {
    /// Off in worlds without stale lists, because copying everything at each change is slow.
    wanted: bool,
    past: VecDeque<(Duration, Moment)>,
}

impl Lists {
    #[must_use]
    pub const fn new(wanted: bool) -> Self {
        Self {
            wanted,
            past: VecDeque::new(),
        }
    }

    /// Records the current state, if it differs from the last one.
    pub fn record(&mut self, world: &World, now: Duration) {
        if !self.wanted {
            return;
        }
        let same = self.past.back().is_some_and(|(_, moment)| {
            moment.len() == world.interfaces().count()
                && world
                    .interfaces()
                    .all(|eni| moment.get(&eni.id) == Some(eni))
        });
        if same {
            return;
        }
        let moment = world
            .interfaces()
            .map(|eni| (eni.id.clone(), eni.clone()))
            .collect();
        self.past.push_back((now, moment));
        // The last state before the window was true at its start.
        while self.past.get(1).is_some_and(|(at, _)| *at + OLDEST < now) {
            self.past.pop_front();
        }
    }

    /// Every ENI in a state that is at most `lag` old, each with its own age.
    pub fn view(&self, now: Duration, lag: Duration, rng: &mut Rng) -> Vec<NetworkInterface> {
        let ids: BTreeSet<&EniId> = self
            .past
            .iter()
            .flat_map(|(_, moment)| moment.keys())
            .collect();
        let most = u64::try_from(lag.as_millis()).unwrap_or(0);
        ids.into_iter()
            .filter_map(|id| {
                let at = now.saturating_sub(rng.millis(0, most));
                let (_, moment) = self.past.iter().rev().find(|(since, _)| *since <= at)?;
                moment.get(id).cloned()
            })
            .collect()
    }
}
