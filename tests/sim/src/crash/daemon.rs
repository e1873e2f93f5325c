//! Successive daemons on one node: each takes over from the previous one, like `ipamd run`, and dies at the chosen
//! point.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use ipamd::{
    config,
    ec2::executor::Executor,
    node::identity::Identity,
    pool::{checkpoint, discovery, driver::Driver},
    runtime::{
        clock::Clock,
        supervise::Detached,
        worker::{Job, Worker},
    },
    sandbox::{
        recovery::{self, Agreed},
        sandboxes::Sandboxes,
    },
    state::store::Store,
    telemetry::{metrics::Metrics, recorder::Recorder},
};
use planner::{Event, Mono, Planner, Sandbox};
use tokio::time::sleep;

use crate::{
    node::{identity, settings},
    state::{Shared, State},
    surroundings::{cloud::Cloud, host::Host, pod_network::PodNetwork},
};

/// Between a daemon's death and the next one's start.
const DOWN: Duration = Duration::from_secs(2);

/// The verbs of a daemon, and its generation.
type Generation = (Sandboxes<PodNetwork>, u64);

/// The daemon that serves now, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Serving(Arc<Mutex<Option<Generation>>>);

impl Serving {
    pub fn get(&self) -> Option<Generation> {
        self.0.lock().expect("a panic ends the run").clone()
    }

    fn set(&self, serving: Option<Generation>) {
        *self.0.lock().expect("a panic ends the run") = serving;
    }
}

/// Keeps a daemon running on the node, forever.
pub async fn keep_one(shared: Arc<Shared>, dir: PathBuf, serving: Serving) {
    let me = Arc::new(shared.with(|state, _| identity(state)));
    let metrics = Arc::new(Metrics::new());
    let mut state_file = None;
    loop {
        let generation = shared.with(|state, now| {
            state.generation += 1;
            state.budget.restart();
            state
                .trace
                .note(now, "start", &[state.generation], || state.generation);
            state.generation
        });
        shared.begun(generation);
        let path = inherit(&dir, state_file.as_deref(), generation);
        let daemon = Daemon {
            shared: shared.clone(),
            me: me.clone(),
            metrics: metrics.clone(),
            generation,
            path: path.clone(),
            serving: serving.clone(),
        };
        tokio::select! {
            () = daemon.run() => {}
            () = shared.outlived(generation) => {}
        }
        serving.set(None);
        state_file = Some(path);
        sleep(DOWN).await;
    }
}

/// The state file as the killed daemon left it: a copy, because the old one is still open in the dead daemon's remains.
fn inherit(dir: &Path, last: Option<&Path>, generation: u64) -> PathBuf {
    let path = dir.join(format!("state-{generation}"));
    if let Some(last) = last {
        std::fs::copy(last, &path).expect("a file in memory can be copied");
    }
    path
}

struct Daemon {
    shared: Arc<Shared>,
    me: Arc<Identity>,
    metrics: Arc<Metrics>,
    generation: u64,
    path: PathBuf,
    serving: Serving,
}

impl Daemon {
    async fn run(self) {
        let (shared, generation) = (self.shared.clone(), self.generation);
        let now = || Mono::from_epoch(shared.now());
        let cooldown = shared.with(|state, _| state.scenario.config.cooldown);
        let (store, contents) =
            Store::open(&self.path, "boot").expect("the file of a daemon can be read");
        let intents = contents.intents.clone();
        let pods = PodNetwork {
            shared: shared.clone(),
            generation,
        };
        let mut agreed = recovery::agree(&store, contents, &pods, cooldown, now())
            .await
            .expect("the kernel answers");
        let executor = self.executor();
        if !agreed.explained_by(&agreed.restored.enis) {
            agreed.restored.enis = discovery::attached(&executor).await;
        }
        agreed.adopt(&store).expect("the store can be written");
        shared.with(|state, now| state.compare_records(&agreed, now));
        let store = self.gated(store);
        self.serve(agreed, intents, store, executor, pods).await;
    }

    async fn serve(
        self,
        agreed: Agreed,
        intents: Vec<String>,
        store: Worker<Store>,
        executor: Executor,
        pods: PodNetwork,
    ) {
        let (config, kind, seed) = self.shared.with(|state, _| {
            let scenario = &state.scenario;
            (
                scenario.config.clone(),
                scenario.kind.clone(),
                state.seeds.next(),
            )
        });
        let planner = Planner::new(config.clone(), kind, self.me.placement(), seed);
        let host = Host {
            shared: self.shared.clone(),
            generation: self.generation,
        };
        let (clock, tasks) = (Clock::Runtime(self.shared.epoch()), Detached::default());
        let (pool, driver) = Driver::new(planner, executor.clone(), host, tasks.clone(), clock);
        let driver = driver.with_journal(store.clone());
        drop(tasks.spawn_idle(checkpoint::keep(driver.kept(), pool.clone(), store.clone())));
        let serving = !agreed.restored.enis.is_empty();
        pool.tell(Event::Restore(agreed.restored)).await;
        drop(tasks.spawn_idle(discovery::run(executor.clone(), pool.clone(), serving)));
        if !intents.is_empty() {
            let settle = discovery::settle(executor, pool.clone(), intents, store.clone());
            drop(tasks.spawn_idle(settle));
        }
        let mut all = config::Config::read(&BTreeMap::<&str, &str>::new()).expect("defaults");
        all.pool = config;
        all.egress.other_family = true;
        let sandboxes = Sandboxes::new(
            pool.clone(),
            pods,
            store,
            agreed.pods,
            &all,
            Recorder {
                metrics: self.metrics,
                ..Recorder::default()
            },
            tasks,
        );
        self.shared.with(|state, _| state.pool = Some(pool));
        self.serving.set(Some((sandboxes, self.generation)));
        driver.run().await;
    }

    fn executor(&self) -> Executor {
        let cloud = Cloud {
            shared: self.shared.clone(),
            generation: self.generation,
        };
        Executor::new(
            Arc::new(cloud),
            self.me.clone(),
            settings(&self.shared),
            self.metrics.clone(),
        )
    }

    /// The store between two points at which the daemon may die. A dead daemon's jobs are never executed.
    fn gated(&self, store: Store) -> Worker<Store> {
        let (shared, generation) = (self.shared.clone(), self.generation);
        let store = Mutex::new(store);
        Worker::without_thread(move |job: Job<Store>| {
            if !shared.point(generation, || "commit pending".to_owned()) {
                job(&mut store.lock().expect("no job panics"));
                shared.point(generation, || "commit made".to_owned());
            }
        })
    }
}

impl State {
    /// I6 and I7 over a restart: every pod that got its address has a record, and no deleted one has.
    fn compare_records(&mut self, agreed: &Agreed, now: Duration) {
        let known = |sandbox: &Sandbox| agreed.pods.iter().any(|p| p.record.sandbox == *sandbox);
        if let Some(lost) = self.kernel.running.keys().find(|sandbox| !known(sandbox)) {
            let what = format!("{} has no record after the restart", lost.container_id);
            return self.fail(now, "I6: ADD's success is durable", what);
        }
        if let Some(back) = self.kernel.deleted.iter().find(|sandbox| known(sandbox)) {
            let what = format!("{} is back after the restart", back.container_id);
            self.fail(now, "I7: DEL's success is durable", what);
        }
    }
}
