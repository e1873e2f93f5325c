//! What others did to our ENIs and addresses, and whether EC2 has told the daemon since. Before that it cannot know.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use planner::EniId;

/// The daemon believes its own recent deeds more than a list; a list asked for this long after is believed.
const SETTLED: Duration = Duration::from_secs(15);

/// What was taken from us.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Eni(EniId),
    Address(Ipv4Addr),
}

#[derive(Clone, Copy, Debug)]
struct Told {
    since: Duration,
    attached: bool,
    tagged: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Disturbances(BTreeMap<Thing, Told>);

impl Disturbances {
    pub fn add(&mut self, thing: Thing, now: Duration) {
        self.0.insert(
            thing,
            Told {
                since: now,
                attached: false,
                tagged: false,
            },
        );
    }

    /// A true list was delivered that had been asked for at `asked`: of what is attached here, or of what has our tag.
    pub fn listed(&mut self, asked: Duration, by_tag: bool) {
        for told in self
            .0
            .values_mut()
            .filter(|told| told.since + SETTLED <= asked)
        {
            if by_tag {
                told.tagged |= told.attached;
            } else {
                told.attached = true;
            }
        }
    }

    /// A new daemon has been told nothing yet.
    pub fn forget_lists(&mut self) {
        for told in self.0.values_mut() {
            (told.attached, told.tagged) = (false, false);
        }
    }

    /// Whether the daemon may still take `thing` for ours.
    #[must_use]
    pub fn excuses(&self, thing: &Thing) -> bool {
        self.0.get(thing).is_some_and(|told| !told.tagged)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
