//! The daemon's life: it starts like the real one (recover, serve, list attached ENIs), dies, and starts again.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use ipamd::{
    config,
    ec2::executor::Executor,
    node::identity::Identity,
    pool::{
        discovery,
        driver::{Driver, Pool},
    },
    runtime::{clock::Clock, supervise::Detached},
    telemetry::metrics::Metrics,
};
use planner::{EniId, Event, Mac, Observed, Planner, Restored, SecurityGroupId, SubnetId};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::sleep,
};

use crate::{
    faults::Fault,
    state::{Shared, State, claims::Told},
    surroundings::{cloud::Cloud, host::Host},
};

/// Runs daemons, one at a time.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    me: Arc<Identity>,
    metrics: Arc<Metrics>,
    tasks: Detached,
    /// The task that starts the daemon and then runs it.
    running: Option<JoinHandle<()>>,
}

impl Node {
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        let me = Arc::new(shared.with(|state, _| identity(state)));
        Self {
            shared,
            me,
            metrics: Arc::new(Metrics::new()),
            tasks: Detached::default(),
            running: None,
        }
    }

    /// Starts a daemon, which serves as soon as EC2 has answered.
    pub fn start(&mut self) {
        let generation = self.shared.with(|state, now| {
            state.generation += 1;
            state.budget.restart();
            state.disturbed.forget_lists();
            state
                .trace
                .note(now, "start", &[state.generation], || state.generation);
            state.generation
        });
        let start = Start {
            shared: self.shared.clone(),
            me: self.me.clone(),
            metrics: self.metrics.clone(),
            generation,
        };
        self.running = Some(self.tasks.spawn(start.run()));
    }

    /// Ends it without warning.
    pub fn kill(&mut self) {
        if let Some(task) = self.running.take() {
            task.abort();
        }
        self.shared.with(|state, now| {
            state.pool = None;
            state.monitor = None;
            drop(state.claims.watch());
            state.generation += 1;
            state.count(Fault::Crash, now);
            state.ledger.granted.clear();
            state.bury(now);
        });
    }
}

impl State {
    /// Those of the `known` ENIs whose links disappeared while no daemon ran, and the receiver for later ones.
    fn watch_links(&mut self, known: &[Observed]) -> (Vec<Mac>, mpsc::UnboundedReceiver<Mac>) {
        let (monitor, gone) = mpsc::unbounded_channel();
        self.monitor = Some(monitor);
        let missing = known
            .iter()
            .filter(|eni| !self.links.contains_key(&eni.eni));
        (missing.map(|eni| eni.mac).collect(), gone)
    }

    /// Some pods end while no daemon runs.
    fn bury(&mut self, now: Duration) {
        let mut orphaned = 0;
        for held in self.ledger.live.values_mut() {
            if self.pods.percent(15) {
                held.gone = true;
                orphaned += 1;
            }
        }
        for _ in 0..orphaned {
            self.count(Fault::Orphaned, now);
        }
    }
}

/// One daemon.
struct Start {
    shared: Arc<Shared>,
    me: Arc<Identity>,
    metrics: Arc<Metrics>,
    generation: u64,
}

impl Start {
    async fn run(self) {
        let restored = self.shared.with(|state, now| {
            let cooldown = state.scenario.config.cooldown;
            let enis = state.noted.clone();
            Restored {
                enis,
                ..state.ledger.recover(now, cooldown)
            }
        });
        let cloud = Cloud {
            shared: self.shared.clone(),
            generation: self.generation,
        };
        let executor = Executor::new(
            Arc::new(cloud),
            self.me.clone(),
            settings(&self.shared),
            self.metrics.clone(),
        );
        let known = self
            .shared
            .with(|state, _| state.places.placement().subnets);
        let executor = executor.knowing(&known);
        let (config, kind, seed) = self.shared.with(|state, _| {
            let scenario = &state.scenario;
            (
                scenario.config.clone(),
                scenario.kind.clone(),
                state.seeds.next(),
            )
        });
        let placement = self.shared.with(|state, _| state.places.placement());
        let planner = Planner::new(config, kind, placement, seed);
        let host = Host {
            shared: self.shared.clone(),
            generation: self.generation,
        };
        let clock = Clock::Runtime(self.shared.epoch());
        let detached = Detached::default();
        let (pool, driver) = Driver::new(planner, executor.clone(), host, detached.clone(), clock);
        let serving = !restored.enis.is_empty();
        let known = restored.enis.clone();
        let kept = driver.kept();
        drop(detached.spawn_idle(remember(
            kept.enis,
            self.shared.clone(),
            self.generation,
            |state, enis| state.noted = enis,
        )));
        drop(detached.spawn_idle(remember(
            kept.subnets,
            self.shared.clone(),
            self.generation,
            |state, list| state.places.noted = list,
        )));
        drop(detached.spawn_idle(remember(
            kept.class,
            self.shared.clone(),
            self.generation,
            |state, class| state.places.kept = class,
        )));
        let (claims, changes) = self.shared.with(|state, _| state.claims.watch());
        pool.tell(Event::HostClaims(claims)).await;
        pool.tell(Event::Restore(restored)).await;
        let (missing, monitor) = self.shared.with(|state, _| state.watch_links(&known));
        for mac in missing {
            pool.tell(Event::EniLinkGone { mac }).await;
        }
        drop(detached.spawn_idle(pass_on(monitor, executor.clone(), pool.clone())));
        drop(detached.spawn_idle(pass_on_claims(changes, pool.clone())));
        drop(detached.spawn_idle(tell_class(self.shared.clone(), pool.clone())));
        drop(detached.spawn_idle(discovery::run(executor, pool.clone(), serving)));
        self.shared.with(|state, now| {
            state
                .trace
                .note(now, "serves", &[self.generation], || self.generation);
            state.pool = Some(pool);
        });
        driver.run().await;
    }
}

/// Notifies the pool of each link that disappears.
async fn pass_on(mut gone: mpsc::UnboundedReceiver<Mac>, executor: Executor, pool: Pool) {
    while let Some(mac) = gone.recv().await {
        executor.link_gone(mac);
        pool.tell(Event::EniLinkGone { mac }).await;
    }
}

/// Tells the pool what the host keeps from pods, after each change.
async fn pass_on_claims(mut changes: mpsc::UnboundedReceiver<Told>, pool: Pool) {
    while let Some(claims) = changes.recv().await {
        pool.tell(Event::HostClaims(claims)).await;
    }
}

/// The API server's first answer, some seconds after the start.
async fn tell_class(shared: Arc<Shared>, pool: Pool) {
    let after = shared.with(|state, _| state.places.told().map(|_| state.calls.millis(10, 5000)));
    let Some(after) = after else { return };
    sleep(after).await;
    if let Some(class) = shared.with(|state, _| state.places.told()) {
        pool.tell(Event::Class(Ok(class))).await;
    }
}

/// A part of the store, written when it changes; a dead daemon writes no more.
async fn remember<T: Clone>(
    mut changes: watch::Receiver<T>,
    shared: Arc<Shared>,
    generation: u64,
    write: fn(&mut State, T),
) {
    while changes.changed().await.is_ok() {
        let now = changes.borrow_and_update().clone();
        sleep(Duration::from_millis(1)).await;
        shared.with(|state, _| {
            if state.generation == generation {
                write(state, now);
            }
        });
    }
}

pub(super) fn settings(shared: &Shared) -> config::Cloud {
    config::Cloud {
        cluster: None,
        extra_tags: BTreeMap::new(),
        manage_untagged: false,
        leaked_eni_cleanup: true,
        proxies: Default::default(),
        timeout: shared.with(|state, _| state.scenario.timeout),
    }
}

/// The metadata of this node.
pub(super) fn identity(state: &State) -> Identity {
    let primary = state
        .interface(&EniId(state.primary.0.clone()))
        .expect("an instance has a primary ENI");
    Identity {
        instance: state.me.0.clone(),
        instance_type: state.scenario.kind.name.to_string(),
        region: state.world.region().to_owned(),
        mac: Mac(primary.mac.0),
        address: primary.primary().unwrap_or(Ipv4Addr::UNSPECIFIED),
        subnet: SubnetId(primary.subnet.0.clone()),
        subnet_cidr: state.scenario.subnet,
        security_groups: primary
            .groups
            .iter()
            .map(|group| SecurityGroupId(group.0.clone()))
            .collect(),
    }
}
