//! Random runs compared with a model. The world's ledger is the model: it knows which sandbox has which address, what
//! is in cooldown and what EC2 has, and panics at once on a violation (I1, I2, I3, I5, exactly one answer, ticks
//! without changes). The panic message contains the seed, which reproduces the run exactly.

use std::{collections::BTreeMap, time::Duration};

use super::{
    subnets,
    world::{Fault, World, sandbox},
};
use crate::{
    Class, Command, Config, Event, Rest, Ticket, gate::Action, rng::Rng, scope::subnets::ROLE_TAG,
    snapshot::Phase,
};

const ACTIONS: [Action; 11] = [
    Action::Create,
    Action::Attach,
    Action::Modify,
    Action::Configure,
    Action::Assign,
    Action::Unassign,
    Action::Deconfigure,
    Action::Detach,
    Action::Delete,
    Action::Describe,
    Action::Subnets,
];

struct Run {
    rng: Rng,
    world: World,
    /// Tickets and the deadlines of their answers.
    due: BTreeMap<Ticket, crate::Mono>,
    sizes_itself: bool,
    /// Whether subnets are chosen by tags.
    by_tags: bool,
    /// The minimum number of pods that this node can have.
    capacity: usize,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 9);
        let config = config(&mut rng);
        let kind = ["t3.small", "m5.large", "t3.medium"][pick(&mut rng, 3)];
        let enis = config.max_eni.map_or(usize::MAX, usize::from);
        let sizes_itself = config.sizes_itself();
        let by_tags = pick(&mut rng, 3) == 0;
        let mut world = match by_tags {
            true => subnets::zone(kind, config),
            false => World::bare(kind, config),
        };
        let foreign = pick(&mut rng, 4) == 0;
        if foreign {
            world.foreign(1, false);
        }
        let capacity = (enis.min(world.max_enis) - usize::from(foreign)) * world.slots;
        if pick(&mut rng, 5) == 0 {
            world.left = pick(&mut rng, 40);
        }
        world.latency = Duration::from_millis(u64::try_from(50 + pick(&mut rng, 4000)).unwrap());
        Self {
            rng,
            world,
            due: BTreeMap::new(),
            sizes_itself,
            by_tags,
            capacity,
        }
    }

    fn pick(&mut self, n: usize) -> usize {
        pick(&mut self.rng, n)
    }

    fn sandbox(&mut self) -> u32 {
        u32::try_from(self.pick(14)).unwrap()
    }

    fn step(&mut self) {
        match self.pick(21) {
            20 => self.change_subnets(),
            0..=6 => {
                let n = self.sandbox();
                let seconds = 1 + self.pick(60) as u64;
                let ticket = self.world.add_within(n, seconds);
                self.due
                    .insert(ticket, self.world.now + Duration::from_secs(seconds));
            }
            7..=10 => {
                let n = self.sandbox();
                // The daemon does not handle a DEL while the same sandbox is being wired.
                if !self.world.unwired.contains(&sandbox(n)) {
                    self.world.left(n);
                }
            }
            11 => self.world.auto_wire = !self.world.auto_wire,
            12 | 13 => self.wire(),
            14 => self.fault(),
            15 => {
                let open: Vec<_> = self.world.asked.iter().copied().collect();
                if !open.is_empty() {
                    let ticket = open[self.pick(open.len())];
                    self.world.asked.remove(&ticket);
                    self.due.remove(&ticket);
                    self.world.send(Event::Cancel { ticket });
                }
            }
            16 => {
                let schedulable = self.pick(3) > 0;
                self.world.send(Event::Node {
                    schedulable,
                    stopping: false,
                });
            }
            17 => {
                let list = self.world.listing();
                self.world.send(Event::Inventory(list));
            }
            _ => {
                let seconds = self.pick(45) as u64;
                self.world.run(seconds);
            }
        }
        let seconds = u64::from(self.pick(3) == 0);
        self.world.run(seconds);
        self.on_time();
    }

    /// Somebody changes the tags of a subnet, or uses its addresses.
    fn change_subnets(&mut self) {
        let plots: Vec<_> = self.world.plots.keys().cloned().collect();
        if !self.by_tags || plots.is_empty() {
            return;
        }
        let id = plots[self.pick(plots.len())].clone();
        let (role, left) = (self.pick(3), self.pick(100));
        let plot = self.world.plots.get_mut(&id).unwrap();
        plot.left = left;
        match role {
            0 => plot.listed.tags.insert(ROLE_TAG.into(), "0".into()),
            1 if id != "subnet-untagged".into() => {
                plot.listed.tags.insert(ROLE_TAG.into(), "1".into())
            }
            _ => plot.listed.tags.remove(ROLE_TAG),
        };
    }

    /// Completes or fails the wiring of waiting sandboxes.
    fn wire(&mut self) {
        for one in std::mem::take(&mut self.world.unwired) {
            if self.pick(4) == 0 {
                self.world.live.remove(&one);
                self.world.send(Event::Unwired { sandbox: one });
            } else {
                self.world.send(Event::Wired { sandbox: one });
            }
        }
    }

    fn fault(&mut self) {
        let action = ACTIONS[self.pick(ACTIONS.len())];
        let fault = match self.pick(13) {
            0 => Fault::LoseReply,
            1 => Fault::Silence,
            2 => Fault::Refuse(Class::Throttled {
                retry_after: Some(Duration::from_secs(3)),
            }),
            3 => Fault::Refuse(Class::Exhausted),
            4 => Fault::Refuse(Class::Fragmented),
            5 => Fault::Refuse(Class::Limit),
            6 => Fault::Refuse(Class::NotFound),
            7 => Fault::Refuse(Class::Denied {
                action: "ec2:Something".into(),
                why: None,
            }),
            8 => Fault::Refuse(Class::InUse),
            9 => Fault::Refuse(Class::Transient),
            10 => Fault::Refuse(Class::Refused(Rest::Short)),
            11 => Fault::Refuse(Class::Refused(Rest::Long)),
            _ => Fault::Refuse(Class::Ambiguous),
        };
        // The host has its own failures. NotFound must not be false, because the planner believes it.
        let fault = match fault {
            Fault::Refuse(_) if action.on_host() => Fault::Refuse(Class::Host),
            Fault::Refuse(Class::NotFound) => Fault::Refuse(Class::Transient),
            other => other,
        };
        let times = 1 + self.pick(3);
        self.world.fault(action, vec![fault; times]);
    }

    /// I8: every ticket has its answer by its deadline.
    fn on_time(&mut self) {
        let open = &self.world.asked;
        self.due.retain(|ticket, _| open.contains(ticket));
        for (ticket, due) in &self.due {
            assert!(
                self.world.now <= *due,
                "{ticket:?} was due at {due:?}, now {:?}",
                self.world.now
            );
        }
    }

    /// After the faults: nothing leaks (I4), no more calls are made (I9), and pods are served or refused with a reason.
    fn settle(&mut self) {
        self.world.faults.clear();
        self.world.auto_wire = true;
        self.world.send(Event::Node {
            schedulable: true,
            stopping: false,
        });
        self.wire();
        self.world.left = 10_000;
        self.world.run(1800);
        self.on_time();
        if self.by_tags {
            // No subnet is excluded any more. This is seen within an hour or so.
            let plots = self.world.plots.values_mut();
            plots.for_each(|plot| plot.listed.tags.clear());
            self.world.run(9000);
        }
        if self.sizes_itself {
            self.fall_silent();
        }
        let from = self.world.log.len();
        self.world.run(3600);
        let calls = self.world.calls_since(from);
        let (lists, calls): (Vec<_>, Vec<_>) = calls
            .into_iter()
            .partition(|call| matches!(call, Command::DescribeSubnets { .. }));
        assert!(calls.is_empty(), "idle at its target, and calls {calls:?}");
        assert!(lists.len() <= usize::from(self.by_tags), "{lists:?}");
        let never = ["subnet-far", "subnet-untagged"];
        let created = self.world.created_in();
        assert!(
            !created.iter().any(|subnet| never.contains(&&**subnet)),
            "{created:?}"
        );
        let snapshot = self.world.planner.snapshot(self.world.now);
        assert_eq!(snapshot.calls.len(), 0);
        for eni in &snapshot.enis {
            assert!(eni.phase == Phase::Ready && eni.usable, "{eni:#?}");
        }
        self.books_agree();
        let ticket = self.world.add(99);
        self.world.run(61);
        assert!(!self.world.asked.contains(&ticket));
        let room = self.world.live.len() < self.capacity;
        assert!(
            self.world.granted.contains_key(&ticket) || !room,
            "{:?} with {} of {} addresses taken",
            self.world.refused.get(&ticket),
            self.world.live.len(),
            self.capacity
        );
    }

    /// A pool that sizes itself decays for days: it returns addresses a limited number of times and requests nothing.
    fn fall_silent(&mut self) {
        let from = self.world.log.len();
        let enis = self.world.enis.len();
        let free = self.world.planner.totals().free;
        self.world.run(12 * 86_400);
        let mut calls = self.world.calls_since(from);
        calls.retain(|call| !matches!(call, Command::DescribeSubnets { .. }));
        let returns = |c: &&&Command| {
            matches!(
                c,
                Command::Unassign { .. } | Command::DetachEni { .. } | Command::DeleteEni { .. }
            )
        };
        assert_eq!(
            calls.iter().filter(returns).count(),
            calls.len(),
            "{calls:?}"
        );
        let unassigns = calls
            .iter()
            .filter(|c| matches!(c, Command::Unassign { .. }))
            .count();
        // Each round returns at least three addresses, with one call per ENI and one more for blocks of the other kind.
        let bound = (usize::try_from(free).unwrap() / 3 + 1) * enis;
        assert!(
            unassigns <= bound,
            "{unassigns} with {free} free: {calls:?}"
        );
        assert!(calls.len() - unassigns <= 2 * (enis - 1), "{calls:?}");
    }

    /// EC2's state of our ENIs and our own state are the same.
    fn books_agree(&self) {
        let snapshot = self.world.planner.snapshot(self.world.now);
        let ours: BTreeMap<_, usize> = snapshot
            .enis
            .iter()
            .map(|eni| (eni.id.clone().unwrap(), eni.addresses.len()))
            .collect();
        let managed = self.world.enis.values().filter(|eni| eni.observed.managed);
        let theirs: BTreeMap<_, usize> = managed
            .map(|eni| &eni.observed)
            .map(|seen| {
                (
                    seen.eni.clone(),
                    seen.addresses.len() + 16 * seen.prefixes.len(),
                )
            })
            .collect();
        assert_eq!(ours, theirs);
    }
}

fn pick(rng: &mut Rng, n: usize) -> usize {
    usize::try_from(rng.next() % u64::try_from(n).unwrap()).unwrap()
}

fn config(rng: &mut Rng) -> Config {
    let base = Config {
        prefix_delegation: pick(rng, 3) == 0,
        ..Config::upstream()
    };
    match pick(rng, 7) {
        0 => base,
        5 | 6 => Config {
            warm_eni_target: None,
            warm_prefix_target: None,
            ..base
        },
        1 => Config {
            warm_eni_target: Some(0),
            warm_prefix_target: Some(0),
            ..base
        },
        2 => Config {
            warm_ip_target: Some(2),
            ..base
        },
        3 => Config {
            minimum_ip_target: Some(4),
            ..base
        },
        _ => Config {
            warm_ip_target: Some(1),
            minimum_ip_target: Some(3),
            max_eni: Some(2),
            ..base
        },
    }
}

fn play(seed: u64) {
    let mut run = Run::new(seed);
    run.world.start();
    for _ in 0..120 {
        run.step();
    }
    run.settle();
    assert!(
        run.world
            .log
            .iter()
            .any(|c| matches!(c, Command::Grant { .. } | Command::Refuse { .. }))
    );
}

fn play_all(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let outcome = std::panic::catch_unwind(|| play(seed));
        assert!(outcome.is_ok(), "seed {seed} fails; see the panic above");
    }
}

#[test]
fn random_runs_a() {
    play_all(0..400);
}

#[test]
fn random_runs_b() {
    play_all(10_000..10_400);
}
