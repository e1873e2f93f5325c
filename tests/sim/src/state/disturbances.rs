//! What others did to our ENIs and addresses, and whether the daemon has been told since. Before that, it cannot know.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;
use planner::EniId;

/// The daemon trusts its own recent changes more than a list; a list that is requested this long afterwards is trusted.
const SETTLED: Duration = Duration::from_secs(15);

/// A grant may overlap with the kernel's notification.
const HEARD: Duration = Duration::from_millis(5);

/// The object that was removed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Thing {
    Eni(EniId),
    Address(IpAddr),
    /// Removed, or assigned to us by others.
    Prefix(IpNet),
}

#[derive(Clone, Copy, Debug)]
struct Told {
    since: Duration,
    attached: bool,
    tagged: bool,
    /// When its link disappeared, with a notification from the kernel.
    link_gone: Option<Duration>,
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
                link_gone: None,
            },
        );
    }

    /// A true list from `asked` was delivered: of attached ENIs, or of those with our tag.
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

    /// A new daemon has not been told anything yet.
    pub fn forget_lists(&mut self) {
        for told in self.0.values_mut() {
            (told.attached, told.tagged) = (false, false);
        }
    }

    pub fn link_gone(&mut self, eni: &EniId, now: Duration) {
        if let Some(told) = self.0.get_mut(&Thing::Eni(eni.clone())) {
            told.link_gone.get_or_insert(now);
        }
    }

    /// Whether the daemon may still treat `thing` as ours: neither EC2 nor the kernel has told it otherwise.
    #[must_use]
    pub fn excuses(&self, thing: &Thing, now: Duration) -> bool {
        let ignorant = |told: &Told| {
            let heard = told.link_gone.is_some_and(|at| at + HEARD <= now);
            !told.tagged && !heard
        };
        self.0.get(thing).is_some_and(ignorant)
    }

    /// Like [`Disturbances::excuses`], for an address or its prefix.
    #[must_use]
    pub fn excuses_address(&self, address: IpAddr, now: Duration) -> bool {
        let covers = |thing: &Thing| match thing {
            Thing::Eni(_) => false,
            Thing::Address(one) => *one == address,
            Thing::Prefix(net) => net.contains(&address),
        };
        let mut things = self.0.keys();
        things.any(|thing| covers(thing) && self.excuses(thing, now))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
