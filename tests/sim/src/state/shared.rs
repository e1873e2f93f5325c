//! The world as shared by all actors: EC2, the node's ledger, the trace, and the first violation.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use ipamd::pool::driver::Pool;
use planner::{EniId, Mac, Observed};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};
use vpc_sim::{
    LaunchInstance, World, WorldConfig,
    ids::{self, InstanceId, SubnetId},
    latency::Latency,
    random::Rng,
    world::model::{AttachmentState, Change, NetworkInterface},
};

use crate::{
    faults::{Fault, Tally},
    random::Purpose,
    scenario::{SUBNET_V6, Scenario},
    state::{
        budget::Budget,
        claims::Claims,
        disturbances::Disturbances,
        ledger::{Held, Ledger},
        lists::Lists,
        places::PlaceState,
        pod_links::Kernel,
        points::Points,
        trace::{Trace, digest},
    },
};

/// A violated invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Duration,
    pub rule: &'static str,
    pub what: String,
}

/// Everything behind one lock, which is never held across an await.
#[derive(Debug)]
pub struct State {
    pub scenario: Arc<Scenario>,
    pub world: World,
    pub me: InstanceId,
    pub primary: EniId,
    pub subnet: SubnetId,
    pub places: PlaceState,
    pub ledger: Ledger,
    pub trace: Trace,
    pub tally: Tally,
    pub lists: Lists,
    pub budget: Budget,
    pub disturbed: Disturbances,
    /// The kernel's links of attached ENIs.
    pub links: BTreeMap<EniId, Mac>,
    /// ENIs that the host has configured; the kernel keeps them across restarts of the daemon.
    pub configured: BTreeSet<EniId>,
    /// The ENIs in the daemon's store.
    pub noted: Vec<Observed>,
    /// When each ENI was created, for those that are not found at first.
    pub made: BTreeMap<EniId, Duration>,
    /// Addresses of the subnet that others use.
    pub neighbours: Vec<Ipv4Addr>,
    /// ENIs of others that are attached to this node.
    pub foreign: Vec<ids::EniId>,
    /// How many of them were detached when the faults stopped.
    pub just_left: usize,
    /// Pods' links, if they are simulated one by one.
    pub kernel: Kernel,
    /// Where a daemon may be killed, and was.
    pub points: Points,
    /// The daemon, if it serves.
    pub pool: Option<Pool>,
    /// Where the kernel notifies this daemon of links that disappear.
    pub monitor: Option<mpsc::UnboundedSender<Mac>>,
    /// What the host keeps from pods.
    pub claims: Claims,
    /// Counts daemons: everything of an older one is dead.
    pub generation: u64,
    /// From then on there are no more faults, and every ADD must get an address.
    pub entitled: Option<Duration>,
    /// Pods that are refused now do not try again.
    pub closing: bool,
    /// Pods that wait or will try again.
    pub waiting: usize,
    pub calls: Rng,
    pub views: Rng,
    pub host: Rng,
    pub pods: Rng,
    pub seeds: Rng,
    pub broken: Option<Violation>,
}

/// Shared by all actors.
#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    epoch: Instant,
    broken: Notify,
    /// Whether crash points are recorded at all; this costs time.
    enumerates: bool,
    /// The live daemon.
    living: watch::Sender<u64>,
}

impl Shared {
    #[must_use]
    pub fn new(scenario: Arc<Scenario>, trace: Trace, epoch: Instant) -> Self {
        Self {
            state: Mutex::new(State::new(scenario, trace)),
            epoch,
            broken: Notify::new(),
            enumerates: false,
            living: watch::Sender::default(),
        }
    }

    /// Records crash points, and kills a daemon at one of them.
    #[must_use]
    pub fn with_points(self, points: Points) -> Self {
        self.with(|state, _| state.points = points);
        Self {
            enumerates: true,
            ..self
        }
    }

    /// The daemon of `generation` has reached a point where it may be killed. True if it is dead: then it must not
    /// continue.
    pub fn point(&self, generation: u64, name: impl FnOnce() -> String) -> bool {
        if !self.enumerates {
            return false;
        }
        let dead = self.with(|state, now| {
            let lives = state.generation == generation;
            if lives && state.points.pass(name()) {
                state.die(now);
                return true;
            }
            !lives
        });
        if dead {
            self.begun(self.with(|state, _| state.generation));
        }
        dead
    }

    /// Notifies of a daemon's end which one is alive now.
    pub fn begun(&self, generation: u64) {
        self.living.send_if_modified(|living| {
            let changed = *living != generation;
            *living = generation;
            changed
        });
    }

    /// Ends when the daemon of `generation` is dead.
    pub async fn outlived(&self, generation: u64) {
        let mut living = self.living.subscribe();
        // The sender is ours, so there is always an answer.
        drop(living.wait_for(|now| *now != generation).await);
    }

    #[must_use]
    pub fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    #[must_use]
    pub const fn epoch(&self) -> Instant {
        self.epoch
    }

    /// Reads and changes the state, after everything due has been done.
    pub fn with<R>(&self, act: impl FnOnce(&mut State, Duration) -> R) -> R {
        let now = self.now();
        let mut state = self.state.lock().expect("a panic ends the run");
        state.follow(now);
        let result = act(&mut state, now);
        state.follow(now);
        if state.broken.is_some() {
            self.broken.notify_one();
        }
        result
    }

    /// Ends when an invariant has been violated.
    pub async fn failed(&self) {
        self.broken.notified().await;
    }

    /// Whether the daemon of `generation` still runs.
    pub fn alive(&self, generation: u64) -> bool {
        self.with(|state, _| state.generation == generation)
    }
}

impl State {
    fn new(scenario: Arc<Scenario>, trace: Trace) -> Self {
        let seed = scenario.seed;
        let mut world = World::new(WorldConfig {
            seed,
            latency: Latency::default(),
            ..WorldConfig::default()
        });
        let six = scenario.is_ipv6().then_some(SUBNET_V6);
        let vpc = world.add_vpc(vec![scenario.subnet], six.into_iter().collect());
        let subnet = world.add_subnet(&vpc, scenario.subnet, six, 'a');
        let places = PlaceState::new(&scenario.places, &mut world, &vpc, subnet.clone());
        let launch = LaunchInstance::plain(&scenario.kind.name, subnet.clone());
        let node = world
            .launch_instance(&launch, Duration::ZERO)
            .expect("an empty subnet has room for a node");
        let mut lists = Lists::new(scenario.has_stale_lists());
        lists.record(&world, Duration::ZERO);
        Self {
            world,
            me: node.id,
            primary: EniId(node.primary.0),
            subnet,
            places,
            ledger: Ledger::default(),
            trace,
            tally: Tally::default(),
            lists,
            budget: Budget::default(),
            disturbed: Disturbances::default(),
            links: BTreeMap::new(),
            configured: BTreeSet::new(),
            noted: Vec::new(),
            made: BTreeMap::new(),
            neighbours: Vec::new(),
            foreign: Vec::new(),
            just_left: 0,
            kernel: Kernel::default(),
            points: Points::default(),
            pool: None,
            monitor: None,
            claims: Claims::default(),
            generation: 0,
            entitled: None,
            closing: false,
            waiting: 0,
            calls: Purpose::Calls.stream(seed),
            views: Purpose::Lists.stream(seed),
            host: Purpose::Host.stream(seed),
            pods: Purpose::Pods.stream(seed),
            seeds: Purpose::Planner.stream(seed),
            broken: None,
            scenario,
        }
    }

    /// The daemon ends without warning.
    fn die(&mut self, now: Duration) {
        self.pool = None;
        self.monitor = None;
        self.generation += 1;
        self.count(Fault::Crash, now);
    }

    fn follow(&mut self, now: Duration) {
        self.world.advance(now);
        for change in self.world.take_changes() {
            match change {
                Change::Attached { eni, .. } => {
                    self.links.insert(EniId(eni.id.0), Mac(eni.mac.0));
                }
                Change::Detached { eni, .. } => self.link_gone(&EniId(eni.0), now),
                _ => {}
            }
        }
        self.lists.record(&self.world, now);
    }

    /// The kernel's part of a detachment: the link disappears with everything on it, and a notification is sent.
    fn link_gone(&mut self, eni: &EniId, now: Duration) {
        self.configured.remove(eni);
        let Some(mac) = self.links.remove(eni) else {
            return;
        };
        self.trace
            .note(now, "link gone", &[digest(&eni.0)], || &eni.0);
        self.disturbed.link_gone(eni, now);
        if let Some(monitor) = &self.monitor {
            monitor.send(mac).ok(); // A daemon that has just died receives nothing.
        }
    }

    /// Records a violation; the first one counts.
    pub fn fail(&mut self, now: Duration, rule: &'static str, what: String) {
        self.trace
            .note(now, "BROKEN", &[digest(rule)], || format!("{rule}: {what}"));
        self.broken.get_or_insert(Violation {
            at: now,
            rule,
            what,
        });
    }

    pub fn count(&mut self, fault: Fault, now: Duration) {
        self.tally.count(fault);
        self.trace
            .note(now, "fault", &[fault as u64], || fault.name());
    }

    /// Whether a fault happens now: its window is active and the random numbers decide so.
    pub fn strikes(&mut self, fault: Fault, now: Duration) -> bool {
        let percent = self
            .scenario
            .window(fault, now)
            .map(|window| window.percent);
        percent.is_some_and(|percent| self.calls.percent(percent))
    }

    #[must_use]
    pub fn interface(&self, eni: &EniId) -> Option<&NetworkInterface> {
        self.world.interface(&ids::EniId(eni.0.clone()))
    }

    /// Attached to this node, completely.
    #[must_use]
    pub fn is_attached(&self, eni: &NetworkInterface) -> bool {
        let attachment = eni.attachment.as_ref();
        attachment.is_some_and(|attachment| {
            attachment.instance == self.me && attachment.state == AttachmentState::Attached
        })
    }

    /// Ours by tag, or the primary one.
    #[must_use]
    pub fn is_ours(&self, eni: &NetworkInterface) -> bool {
        eni.id.0 == self.primary.0
            || eni.tags.get("node.k8s.amazonaws.com/instance_id") == Some(&self.me.0)
    }

    /// Addresses that pods have on `eni` and that it still owns.
    #[must_use]
    pub fn in_use_on(&self, eni: &NetworkInterface) -> Vec<IpAddr> {
        let here = |held: &&Held| held.eni.0 == eni.id.0 && eni.owns(held.address);
        self.ledger
            .held()
            .map(|(_, held)| held)
            .filter(here)
            .map(|held| held.address)
            .collect()
    }
}
