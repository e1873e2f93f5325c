//! EC2's lists as a caller may see them: of each ENI some recent state, not the same moment for all (ec2-and-faults
//! §3.5: reads lag, miss what is new, show what is gone, and go backwards from one call to the next).

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use vpc_sim::{World, ids::EniId, world::model::NetworkInterface};

use vpc_sim::random::Rng;

/// No list is older.
const OLDEST: Duration = Duration::from_secs(40);

type Moment = BTreeMap<EniId, NetworkInterface>;

/// The states of all ENIs of late.
#[derive(Debug)]
pub struct Lists {
    /// Off in worlds whose lists are never old: copying all of it at each change costs.
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

    /// Remembers the present, if it differs from the last state remembered.
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
        // The last state before the window is the one that was true at its start.
        while self.past.get(1).is_some_and(|(at, _)| *at + OLDEST < now) {
            self.past.pop_front();
        }
    }

    /// Every ENI in a state at most `lag` old, each of its own age.
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
