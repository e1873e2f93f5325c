//! In which subnet the next ENI is created, and when EC2 is asked about subnets.
//!
//! EC2's list is never needed to serve pods. Until it is there, growth waits for one answer; if there is none, new ENIs go
//! to the subnet of the primary ENI, or to those that the class names. A list that was read stays in force until the next.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::{Pending, Planner};
use crate::{
    Class, Command, EniClass, Failure, Mono, Op, SubnetId,
    gate::{Action, SubnetGate, pace},
    placement::{Candidate, Inquiry, NoClass, Selector, SubnetList},
    rng::Rng,
    scope::subnets::{Unfit, fit},
    snapshot::{Phase, PlacesView},
};

/// Between two lists on a node whose subnets are chosen by tags. The spread is added to it.
const PERIOD: Duration = Duration::from_secs(3600);
const SPREAD: Duration = Duration::from_secs(720);
/// Between two lists while no subnet gives addresses: somebody may have added one.
const AGAIN: Duration = Duration::from_secs(300);

/// What is known about subnets.
#[derive(Clone, Debug)]
pub(super) struct Subnets {
    list: BTreeMap<SubnetId, Candidate>,
    /// The zone of the node.
    zone: Option<String>,
    op: Option<Op>,
    /// When the next list is wanted.
    at: Option<Mono>,
    /// When the last one was requested.
    asked: Option<Mono>,
    /// When the last one was read.
    read: Option<Mono>,
    /// The first event has come, which brings the time.
    begun: bool,
    /// Growth need not wait for an answer: there was one, good or bad.
    settled: bool,
    /// Why the last try failed.
    failure: Option<String>,
    failures: u32,
    rng: Rng,
}

/// A subnet in which ENIs may be created.
struct Place {
    subnet: SubnetId,
    weight: u32,
}

impl Subnets {
    /// `known`: what the previous process knew.
    pub(super) fn new(known: SubnetList, rng: Rng) -> Self {
        let mut subnets = Self {
            list: BTreeMap::new(),
            zone: None,
            op: None,
            at: None,
            asked: None,
            read: None,
            begun: false,
            settled: false,
            failure: None,
            failures: 0,
            rng,
        };
        subnets.learn(known);
        subnets
    }

    fn learn(&mut self, list: SubnetList) {
        self.zone = list.zone.or(self.zone.take());
        for mut candidate in list.subnets {
            let known = self.list.remove(&candidate.subnet);
            // Route tables are not part of every list.
            let table = known.and_then(|known| known.route_table);
            candidate.route_table = candidate.route_table.or(table);
            self.list.insert(candidate.subnet.clone(), candidate);
        }
    }

    pub(super) fn get(&self, subnet: &SubnetId) -> Option<&Candidate> {
        self.list.get(subnet)
    }

    fn want(&mut self, at: Mono) {
        self.at = Some(self.at.map_or(at, |known| known.min(at)));
    }

    pub(super) fn next_deadline(&self) -> Option<Mono> {
        self.at.filter(|_| self.op.is_none())
    }

    /// The subnet has given so many addresses since it was listed.
    pub(super) fn took(&mut self, subnet: &SubnetId, addresses: u32) {
        if let Some(candidate) = self.list.get_mut(subnet) {
            candidate.free = candidate.free.saturating_sub(addresses);
        }
    }
}

impl Planner {
    /// At the first event.
    pub(super) fn begin(&mut self) {
        if !std::mem::replace(&mut self.subnets.begun, true) {
            self.look_at_class();
        }
    }

    /// The class of ENIs may have changed.
    pub(super) fn renew_class(&mut self, class: Result<EniClass, NoClass>) {
        if self.class == class {
            return;
        }
        self.class = class;
        self.look_at_class();
    }

    /// Requests EC2's list, if the class needs one that is not known.
    fn look_at_class(&mut self) {
        let subnets = &mut self.subnets;
        let selector = self.class.as_ref().map(|class| &class.subnets);
        match selector {
            Ok(Selector::Tagged { .. }) => {
                subnets.settled = !subnets.list.is_empty();
                // What the previous process knew is good enough for a while. A restart of a whole fleet must not ask EC2.
                let wait = match subnets.settled {
                    true => subnets.rng.jitter(PERIOD),
                    false => Duration::ZERO,
                };
                subnets.want(self.now + wait);
            }
            Ok(Selector::Listed(listed)) => {
                let known = |id: &SubnetId| subnets.list.contains_key(id);
                subnets.settled = listed.iter().all(|one| known(&one.subnet));
                subnets.failure = None;
                if !subnets.settled {
                    subnets.want(self.now);
                }
            }
            Ok(Selector::Primary) | Err(_) => subnets.at = None,
        }
    }

    /// What EC2 must be asked for this class.
    fn inquiry(&self) -> Option<Inquiry> {
        match &self.class.as_ref().ok()?.subnets {
            Selector::Primary => None,
            Selector::Tagged { .. } => Some(Inquiry::OfZone),
            Selector::Listed(listed) => {
                // That of the primary ENI shows the route table of the node.
                let home = self.placement.subnet.clone();
                let mut ids: Vec<_> = listed.iter().map(|one| one.subnet.clone()).collect();
                if !ids.contains(&home) {
                    ids.push(home);
                }
                Some(Inquiry::These(ids))
            }
        }
    }

    /// Whether growth waits for EC2's first answer about subnets.
    pub(super) fn awaits_subnets(&self) -> bool {
        !self.subnets.settled
            && self.inquiry().is_some()
            && self.gates.open(Action::Subnets, self.now)
    }

    /// Sends the call, if it is due.
    pub(super) fn send_subnets(&mut self, out: &mut Vec<Command>) {
        let due = self.subnets.at.is_some_and(|at| at <= self.now);
        if !due
            || self.subnets.op.is_some()
            || !self.may_change()
            || !self.gates.open(Action::Subnets, self.now)
        {
            return;
        }
        let Some(inquiry) = self.inquiry() else {
            self.subnets.at = None;
            return;
        };
        let op = self.pending(Action::Subnets, None);
        self.subnets.op = Some(op);
        self.subnets.at = None;
        self.subnets.asked = Some(self.now);
        self.counters.count(Action::Subnets);
        let at_once = !self.subnets.settled || self.waiting.queued() > 0;
        out.push(Command::DescribeSubnets {
            op,
            inquiry,
            at_once,
        });
    }

    pub(super) fn listed_subnets(&mut self, list: SubnetList) {
        let tagged = matches!(self.inquiry(), Some(Inquiry::OfZone));
        let subnets = &mut self.subnets;
        if tagged {
            let listed = |id: &SubnetId| list.subnets.iter().any(|known| known.subnet == *id);
            subnets.list.retain(|id, _| listed(id));
        }
        subnets.learn(list);
        subnets.op = None;
        subnets.read = Some(self.now);
        subnets.settled = true;
        subnets.failure = None;
        subnets.failures = 0;
        if tagged {
            let spread = subnets.rng.jitter(SPREAD);
            subnets.want(self.now + PERIOD + spread);
        }
    }

    pub(super) fn subnets_failed(&mut self, op: Op, failure: &Failure) {
        let wait = match failure.class {
            Class::Throttled {
                retry_after: Some(wait),
            } => wait,
            // Somebody must change something. Growth goes on without the list.
            Class::Denied { .. } | Class::Refused(_) => PERIOD + self.subnets.rng.jitter(SPREAD),
            _ => self.gates.delay(pace::TERMINATION, self.subnets.failures),
        };
        let subnets = &mut self.subnets;
        if subnets.op == Some(op) {
            subnets.op = None;
        }
        subnets.settled = true;
        subnets.failures += 1;
        subnets.failure = Some(failure.message.clone());
        subnets.want(self.now + wait);
    }

    /// Whether this failure of a Create rests only the subnet, because the class has others.
    pub(super) fn goes_elsewhere(&self, pending: &Pending, failure: &Failure) -> Option<SubnetId> {
        let walks = matches!(failure.class, Class::Denied { .. } | Class::NotFound);
        let several = self.places().is_ok_and(|places| places.len() > 1);
        let eni = self.pool.get(pending.key?)?;
        (pending.action == Action::Create && walks && several).then(|| eni.subnet.clone())
    }

    /// The subnets in which ENIs may be created, as far as the class and EC2's list say.
    fn places(&self) -> Result<Vec<Place>, NoClass> {
        let class = self.class.as_ref().map_err(Clone::clone)?;
        let home = &self.placement.subnet;
        let mut unfit = Vec::new();
        let places = match &class.subnets {
            Selector::Primary => vec![self.place_at_home()],
            Selector::Tagged { .. } if !self.subnets.list.contains_key(home) => {
                // A subnet of another account is not in the list, and has no tags that anybody could set.
                let mut places = self.tagged(class, &mut unfit);
                places.push(self.place_at_home());
                places
            }
            Selector::Tagged { .. } => self.tagged(class, &mut unfit),
            Selector::Listed(listed) => {
                let judged = listed.iter().filter_map(|one| {
                    let place = Place {
                        subnet: one.subnet.clone(),
                        weight: one.weight,
                    };
                    match self.reachable(&one.subnet) {
                        Ok(()) => Some(place),
                        Err(why) => {
                            unfit.push((one.subnet.clone(), why));
                            None
                        }
                    }
                });
                judged.collect()
            }
        };
        if places.is_empty() {
            return Err(self.nowhere(class, &unfit));
        }
        Ok(places)
    }

    fn place_at_home(&self) -> Place {
        Place {
            subnet: self.placement.subnet.clone(),
            weight: 0,
        }
    }

    fn tagged(&self, class: &EniClass, unfit: &mut Vec<(SubnetId, Unfit)>) -> Vec<Place> {
        let Selector::Tagged { cluster } = &class.subnets else {
            return Vec::new();
        };
        let home = &self.placement.subnet;
        let judged = self.subnets.list.values().filter_map(|candidate| {
            let subnet = candidate.subnet.clone();
            let fits = fit(&candidate.tags, subnet == *home, cluster.as_deref())
                .and_then(|()| self.reachable(&subnet));
            match fits {
                Ok(()) => Some(Place { subnet, weight: 0 }),
                Err(why) => {
                    unfit.push((subnet, why));
                    None
                }
            }
        });
        judged.collect()
    }

    /// Whether an ENI in this subnet could be attached to the node.
    pub(super) fn reachable(&self, subnet: &SubnetId) -> Result<(), Unfit> {
        let Some(candidate) = self.subnets.get(subnet) else {
            return match self.subnets.read {
                Some(_) if self.subnets.failure.is_none() && self.subnets.settled => {
                    Err(Unfit::Unknown)
                }
                _ => Ok(()),
            };
        };
        match (&candidate.zone, &self.subnets.zone) {
            (Some(zone), Some(ours)) if zone != ours => Err(Unfit::OtherZone {
                zone: zone.clone(),
                ours: ours.clone(),
            }),
            _ => Ok(()),
        }
    }

    fn nowhere(&self, class: &EniClass, unfit: &[(SubnetId, Unfit)]) -> NoClass {
        let reasons = unfit.iter().map(|(subnet, why)| format!("{subnet}: {why}"));
        let reasons: Vec<_> = reasons.collect();
        let zone = self.subnets.zone.as_deref().unwrap_or("the node's zone");
        let remedy = match class.subnets {
            Selector::Listed(_) => format!("name a subnet of {zone} in the ENIConfig"),
            _ => format!("tag a subnet of {zone} kubernetes.io/role/cni=1"),
        };
        NoClass {
            why: format!(
                "{} has no usable subnet ({})",
                class.name,
                reasons.join("; ")
            ),
            remedy,
        }
    }

    /// The subnet for the next ENI, if there is one now.
    pub(super) fn next_place(&self) -> Option<SubnetId> {
        let places = self.places().ok()?;
        let open = places.into_iter().filter(|place| self.gives(&place.subnet));
        let best = open.min_by_key(|place| self.rank(place));
        best.map(|place| place.subnet)
    }

    fn gives(&self, subnet: &SubnetId) -> bool {
        !(self.gates.exhausted(subnet, self.now)
            || self.gates.refused_in(subnet, self.now)
            || self.probing(subnet))
    }

    /// The lowest rank is used first: room for half an ENI, a higher weight, not scarce, with free /28s, the node's route
    /// table, more free addresses. An ENI in a subnet that is almost full would take one of the instance's ENI slots for a
    /// few pods.
    fn rank(&self, place: &Place) -> impl Ord + use<> {
        let subnet = &place.subnet;
        let candidate = self.subnets.get(subnet);
        let home = self.subnets.get(&self.placement.subnet);
        let table = |candidate: Option<&Candidate>| candidate?.route_table.clone();
        let elsewhere = match (table(candidate), table(home)) {
            (Some(table), Some(home)) => table != home,
            _ => false,
        };
        let coming = self.pool.enis().filter(|eni| {
            eni.phase == Phase::Creating && eni.subnet == *subnet && eni.intent.is_some()
        });
        let coming: u32 = coming
            .filter_map(|eni| eni.asked())
            .map(|amount| amount.addresses() + 1)
            .sum();
        let free = candidate.map_or(0, |candidate| candidate.free.saturating_sub(coming));
        let cramped = candidate.is_some() && free < u32::from(self.instance.slots_per_eni()) / 2;
        (
            cramped,
            Reverse(place.weight),
            self.gates.cap(subnet).is_some(),
            self.policy.prefixes() && self.gates.is_fragmented(subnet, self.now),
            elsewhere,
            Reverse(free),
            subnet.clone(),
        )
    }

    /// An ENI is wanted, and no subnet gives one now, or what is known about several is old.
    pub(super) fn note_wish(&mut self) {
        let choice = match self.class.as_ref().map(|class| &class.subnets) {
            Ok(Selector::Listed(listed)) => listed.len() > 1,
            Ok(Selector::Tagged { .. }) => false,
            Ok(Selector::Primary) | Err(_) => return,
        };
        let nowhere = self.next_place().is_none();
        let subnets = &mut self.subnets;
        if subnets.op.is_some() || subnets.failure.is_some() {
            return;
        }
        let due = |age| subnets.asked.map_or(self.now, |at| at + age);
        if nowhere {
            let at = due(AGAIN);
            subnets.want(at);
        } else if choice && due(PERIOD) <= self.now {
            subnets.want(self.now);
        }
    }

    /// Why no ENI can be created anywhere, however long one waits.
    pub(super) fn no_place(&self) -> Option<NoClass> {
        self.places().err().filter(|_| !self.awaits_subnets())
    }

    /// The subnets that could give addresses: for ENIs that have room, and for new ones.
    pub(super) fn sources(&self) -> Vec<(SubnetId, Option<&SubnetGate>)> {
        let slots = self.instance.slots_per_eni();
        let growing = self.pool.enis().filter(|eni| {
            eni.closed.is_none() && !eni.leaving() && eni.occupies() && eni.room(slots) > 0
        });
        let mut ids: Vec<SubnetId> = growing.map(|eni| eni.subnet.clone()).collect();
        if self.eni_room() > 0 {
            let places = self.places().unwrap_or_default();
            ids.extend(places.into_iter().map(|place| place.subnet));
        }
        ids.sort();
        ids.dedup();
        let gate = |id: SubnetId| {
            let gate = self.gates.subnets.get(&id);
            (id, gate)
        };
        ids.into_iter().map(gate).collect()
    }

    /// Whether EC2 refuses new ENIs in every subnet, or has no address in it.
    pub(super) fn refused_everywhere(&self, now: Mono) -> bool {
        let rests = |place: &Place| {
            self.gates.refused_in(&place.subnet, now) || self.gates.exhausted(&place.subnet, now)
        };
        self.places().is_ok_and(|places| places.iter().all(rests))
    }

    /// For people.
    pub(super) fn places_view(&self) -> PlacesView {
        let subnets = &self.subnets;
        let mut places = self.places();
        if let Ok(places) = &mut places {
            places.sort_by_cached_key(|place| (!self.gives(&place.subnet), self.rank(place)));
        }
        let name = self.class.as_ref().map(|class| class.name.clone());
        PlacesView {
            class: name.unwrap_or_default(),
            none: self.no_place(),
            open: places
                .unwrap_or_default()
                .into_iter()
                .map(|place| place.subnet)
                .collect(),
            list: SubnetList {
                zone: subnets.zone.clone(),
                subnets: subnets.list.values().cloned().collect(),
            },
            listed_at: subnets.read,
            unlisted: subnets.failure.clone(),
        }
    }
}
