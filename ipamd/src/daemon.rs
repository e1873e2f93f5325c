//! `ipamd run`: creates the parts of the daemon in the order of their dependencies, and stops them again.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datapath::host::HostMonitor;
use ipnet::Ipv4Net;
use planner::{EniClass, Event, Family, InstanceType, Mono, Placement, Planner};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{self, Notify, Semaphore, mpsc},
};

use crate::{
    config::{Config, PodSubnets},
    ec2::{
        aws::Aws,
        executor::Executor,
        instance_type::{self, InstanceTypeError},
    },
    host::{
        drift_repair::DriftRepair,
        forwarding,
        hostnet::{HostNet, StartError},
        marks_in_transit, other_family,
        predecessor::{self, StillRunning},
        vpc_blocks::{self, Follower},
    },
    http::{introspection, metrics_server, probes},
    install::{
        conflist::{self, Conflist},
        handback,
    },
    kube,
    node::{
        identity::{Identity, MetadataError},
        metadata::Metadata,
    },
    pool::{
        checkpoint, discovery,
        driver::{Driver, Pool},
        groups,
    },
    rpc::{
        listener::{
            self,
            admission::{self, ConnectionSlots},
        },
        presence,
        service::Service,
    },
    runtime::{
        clock::{self, Clock},
        supervise::{Detached, Supervisor},
        worker::Worker,
    },
    sandbox::{
        recovery::{self, Agreed},
        sandboxes::Sandboxes,
        takeover::{self, Takeover, TakeoverError},
    },
    state::store::{Contents, Store, StoreError},
    telemetry::{
        metrics::Metrics,
        recorder::Recorder,
        spans::{Origin, Spans},
    },
};

/// How long shutdown waits for requests in progress.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// The number of changes on the host that can be queued for the pool.
const HOST_NEWS: usize = 16;
/// How long the start waits for data that only spans use.
const ZONE_LIMIT: Duration = Duration::from_secs(1);

/// Why the daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("could not prepare \"{}\"", path.display())]
    RunDirectory { path: PathBuf, source: io::Error },
    #[error("could not open the durable state")]
    Store(#[from] StoreError),
    #[error("could not read the node's identity")]
    Identity(#[from] MetadataError),
    #[error("could not determine the limits of this instance")]
    InstanceType(#[from] InstanceTypeError),
    #[error(
        "ENABLE_IPv6 needs an instance that supports prefixes, and {0} is not a Nitro instance: use another type, or ENABLE_IPv4=true"
    )]
    NoPrefixes(String),
    #[error("another network plugin is in charge of this node")]
    StillRunning(#[from] StillRunning),
    #[error("could not take over the node's network")]
    Host(#[from] StartError),
    #[error("could not compare records with the kernel")]
    Recovery(#[from] recovery::RecoveryError),
    #[error("could not take the node over from the AWS VPC CNI")]
    Takeover(#[from] TakeoverError),
    #[error("could not serve {what}")]
    Serve { what: String, source: io::Error },
    #[error("stopped because {0}")]
    TaskEnded(String),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`DaemonError`]: the process should exit with an error and be restarted.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let mut node = Node::take_over(config).await?;
    let detached = Detached::default();
    let metrics = node.recorder.metrics.clone();
    let mut supervisor = Supervisor::new(move |task| metrics.task_panicked(task));
    let pool = node.start_pool(&mut supervisor, &detached).await?;
    let stop = node.serve(&pool, &mut supervisor, &detached).await?;

    let ended = until_stopped(&mut supervisor).await;
    let stopping = Event::Node {
        schedulable: true,
        stopping: true,
    };
    pool.tell(stopping).await;
    // Fails only if there is no receiver any more.
    stop.send(()).unwrap_or_default();
    if !detached.finished(DRAIN_LIMIT).await {
        let seconds = DRAIN_LIMIT.as_secs();
        tracing::warn!(seconds, "requests were still in progress at shutdown");
    }
    if !matches!(
        checkpoint::keep_demand(&pool, &node.store).await,
        Ok(Ok(()))
    ) {
        tracing::warn!("the learned demand of the last minutes is lost");
    }
    node.recorder.spans.finish();
    // From now on the plugin counts. A mark that cannot be written was warned about.
    proto::presence::mark(&node.config.paths.socket()).unwrap_or_default();
    tracing::info!("stopped");
    ended
}

/// The parts that exist before anything runs.
struct Node {
    begun: Mono,
    config: Config,
    recorder: Recorder,
    me: Arc<Identity>,
    kind: InstanceType,
    host: HostNet,
    /// Until the drift repair takes them.
    host_changes: Option<HostMonitor>,
    executor: Executor,
    store: Worker<Store>,
    agreed: Agreed,
    /// ENIs that the previous process was creating when it ended.
    intents: Vec<String>,
    boot: String,
    imds: Metadata,
    vpc_blocks: Vec<Ipv4Net>,
    placement: Placement,
}

impl Node {
    /// Takes over the node from the previous process: its state file, its network, its pods.
    async fn take_over(config: Config) -> Result<Self, DaemonError> {
        let begun = clock::now();
        let metrics = Arc::new(Metrics::new());
        metrics.settings(&config.notices);
        let boot = boot_id().map_err(|source| serve_error("the boot id", source))?;
        make_run_dir(&config)?;
        let (store, mut contents) = Store::open(&config.paths.state(), &boot)?;
        let running = predecessor::running(config.pool.family)?;
        let forgotten = handback::forget(&config.paths.run_dir);
        forgotten.map_err(|source| serve_error("the mark of a handback", source))?;
        let imds = Metadata::new(config.cloud.timeout);
        let me = identity(&imds, &store, contents.identity.clone()).await?;
        let vpc_blocks = vpc_blocks(&imds, &store, &me, contents.vpc_blocks.clone()).await?;
        // Pods that had it when it was switched off keep it.
        let mut records = contents.records.iter();
        let other_family = config.egress.other_family || records.any(|r| r.egress.is_some());
        let egress = vpc_blocks::egress(&config.egress, &me, &vpc_blocks, other_family);
        let (host, host_changes) = HostNet::start(
            &me,
            config.pool.family,
            &config.network,
            egress,
            &running,
            metrics.clone(),
        )?;
        let placement = placement(&config, &me, &contents);
        let aws = Arc::new(
            Aws::new(
                me.region.clone(),
                &config.cloud.proxies,
                config.cloud.timeout,
            )
            .await,
        );
        let kind = instance_type::known_or_asked(&me.instance_type, &aws).await?;
        if config.pool.family == Family::V6 && !kind.supports_prefixes() {
            return Err(DaemonError::NoPrefixes(me.instance_type.clone()));
        }
        let spans = spans(&config, &me, &imds, &metrics).await;
        let executor = Executor::new(aws, me.clone(), config.cloud.clone(), metrics.clone())
            .with_spans(spans.clone());
        let intents = contents.intents.clone();
        let due = Takeover::look(takeover::settings(&config, &kind), &host).await?;
        let adopted = match due {
            Some(due) => {
                let enis = discovery::attached(&executor).await;
                let records = (&store, &mut contents);
                Some(due.begin(records, &host, enis, clock::now()).await?)
            }
            None => None,
        };
        let mut agreed =
            recovery::agree(&store, contents, &host, config.pool.cooldown, clock::now()).await?;
        let here = host.macs().await.map_err(recovery::RecoveryError::from)?;
        agreed.keep_linked(&here);
        if !agreed.explained_by(&agreed.restored.enis) {
            let pods = agreed.orphans.len();
            tracing::warn!(
                pods,
                "found pods without a record: asking EC2 for their addresses"
            );
            agreed.restored.enis = discovery::attached(&executor).await;
        }
        agreed.adopt(&store)?;
        host.keep(&agreed.pods).await;
        if let Some(adopted) = adopted {
            adopted.finish(&store, &host, &mut agreed).await?;
        }
        let store = store.counted(metrics.clone());
        let store = Worker::start("store", store).map_err(|e| serve_error("the store", e))?;
        Ok(Self {
            begun,
            config,
            recorder: Recorder {
                metrics,
                history: Arc::default(),
                spans,
            },
            me,
            kind,
            host,
            host_changes: Some(host_changes),
            executor,
            store,
            agreed,
            intents,
            boot,
            imds,
            vpc_blocks,
            placement,
        })
    }

    /// Starts the pool with the state on which record and kernel agree. EC2's list arrives later.
    async fn start_pool(
        &self,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Result<Pool, DaemonError> {
        let kind = self.kind.clone();
        let placement = self.placement.clone();
        let planner = Planner::new(self.config.pool.clone(), kind, placement, seed(&self.boot));
        let (executor, store) = (self.executor.clone(), self.store.clone());
        let (pool, driver) = Driver::new(
            planner,
            executor.clone(),
            self.host.clone(),
            detached.clone(),
            Clock::Boot,
        );
        let driver = driver
            .with_journal(store.clone())
            .with_history(self.recorder.history.clone());
        let kept = checkpoint::keep(driver.kept(), pool.clone(), store.clone());
        supervisor.critical("checkpoint", kept);
        // If the store panics on a corrupt page, it would refuse every ADD; a restart moves the file aside.
        supervisor.critical("store", store.ended());
        supervisor.critical("datapath", self.host.ended());
        supervisor.critical("pool", driver.run());
        let follower = Follower {
            imds: self.imds.clone(),
            settings: self.config.egress.clone(),
            me: self.me.clone(),
            host: self.host.clone(),
            store: self.store.clone(),
            known: self.vpc_blocks.clone(),
        };
        // IPv6 pods are not translated, so the VPC's CIDR blocks are not needed.
        if self.config.pool.family == Family::V4 {
            supervisor.critical("vpc blocks", follower.run());
        }

        for (address, until) in self.agreed.left_empty() {
            self.host.stale_connections().left(address, until);
        }
        supervisor.critical("conntrack", self.host.stale_connections().clone().run());
        let serving = !self.agreed.restored.enis.is_empty();
        // Before any address can be granted.
        let claims = self.host.claims().await;
        let claims = claims.map_err(recovery::RecoveryError::from)?;
        let restored = &self.agreed.restored;
        let enis = restored.enis.iter().map(|eni| eni.eni.clone());
        let of_pods = restored.assigned.iter().map(|(.., eni)| eni.clone());
        let configured = self.host.eni_addresses().await;
        let configured = configured.map_err(recovery::RecoveryError::from)?;
        executor.keep(enis.chain(of_pods), configured);
        executor.host_has(&claims);
        pool.tell(Event::HostClaims(claims)).await;
        self.host.warn_of_mark_conflicts().await;
        if self.config.egress.other_family {
            other_family::warn(self.config.pool.family.other());
        }
        pool.tell(Event::Restore(self.agreed.restored.clone()))
            .await;
        let (asking, told) = (executor.clone(), pool.clone());
        supervisor.restarted("EC2 discovery", move || {
            discovery::run(asking.clone(), told.clone(), serving)
        });
        if !self.intents.is_empty() {
            let (intents, told) = (self.intents.clone(), pool.clone());
            supervisor.restarted("intents", move || {
                discovery::settle(
                    executor.clone(),
                    told.clone(),
                    intents.clone(),
                    store.clone(),
                )
            });
        }
        let (settings, told) = (self.config.kubernetes.clone(), pool.clone());
        let custom = self.custom_networking();
        supervisor.restarted("Node follower", move || {
            kube::follow(settings.clone(), custom.clone(), told.clone())
        });
        let (settings, told) = (self.config.kubernetes.clone(), pool.clone());
        let conflist = self.config.paths.cni_conf_dir.clone();
        let conflist = conflist.map(|directory| directory.join(conflist::NAME));
        supervisor.restarted("Node reporter", move || {
            kube::report(settings.clone(), conflist.clone(), told.clone())
        });
        let (family, marks) = (self.config.pool.family, self.config.egress.marks);
        let prefix = self.config.network.veth_prefix.clone();
        let metrics = self.recorder.metrics.clone();
        supervisor.restarted("filter check", move || {
            forwarding::watch(family, prefix.clone(), marks, metrics.clone())
        });
        // The pods of an IPv6 node need no marks.
        if family == Family::V4 {
            let metrics = self.recorder.metrics.clone();
            supervisor.restarted("mark check", move || {
                marks_in_transit::watch(marks, metrics.clone())
            });
        }
        Ok(pool)
    }

    fn custom_networking(&self) -> Option<kube::CustomNetworking> {
        let PodSubnets::Custom(keys) = &self.config.pod_subnets else {
            return None;
        };
        Some(kube::CustomNetworking {
            keys: keys.clone(),
            known: self.placement.class.clone(),
        })
    }

    /// Opens the socket and the metrics port. Sending on the result closes the socket.
    async fn serve(
        &mut self,
        pool: &Pool,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Result<sync::watch::Sender<()>, DaemonError> {
        let (recorder, socket) = (self.recorder.clone(), self.config.paths.socket());
        let sandboxes = Sandboxes::new(
            pool.clone(),
            self.host.clone(),
            self.store.clone(),
            self.agreed.pods.clone(),
            &self.config,
            recorder.clone(),
            detached.clone(),
        );
        let tombstones = proto::tombstone::directory(&socket);
        // Before anything is served: an ADD must not meet the remains of a deleted sandbox.
        sandboxes.honour_tombstones(&tombstones).await;
        let ended = self.watch(pool, supervisor, detached);
        supervisor.critical("sweep", sandboxes.clone().sweep(tombstones, ended));
        let shown = sandboxes.clone();
        let slots =
            ConnectionSlots::new(admission::Limits::within(listener::raise_descriptor_limit()));
        let service = Service {
            sandboxes,
            pool: pool.clone(),
            detached: detached.clone(),
            me: self.me.clone(),
            recorder: recorder.clone(),
            notices: self.config.notices.clone().into(),
            room: Arc::new(Semaphore::new(slots.count())),
        };
        let stop = listen(&socket, service, slots, supervisor, detached.clone())?;
        if let Some(address) = self.config.metrics {
            let bound = metrics_server::start(
                address,
                pool.clone(),
                self.executor.clone(),
                recorder.metrics.clone(),
            )
            .map_err(|e| serve_error("metrics", e))?;
            tracing::info!(%bound, "serving metrics");
        }
        self.serve_probes(pool);
        self.introspect(pool, shown, detached);
        let (marked, served) = (socket.clone(), pool.clone());
        supervisor.restarted("presence", move || {
            presence::keep(marked.clone(), served.clone())
        });
        self.announce(pool, socket.clone(), supervisor);
        recorder.metrics.ready(clock::now().since(self.begun));
        tracing::info!(socket = %socket.display(), "ready");
        Ok(stop)
    }

    /// Starts the drift repair of the node's network. The result is notified when a pod's link is removed.
    fn watch(
        &mut self,
        pool: &Pool,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Arc<Notify> {
        let (ended, ask) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (news, received) = mpsc::channel(HOST_NEWS);
        let follow =
            discovery::follow_host(received, self.executor.clone(), ask.clone(), pool.clone());
        supervisor.critical("host news", follow);
        let watch = DriftRepair {
            host: self.host.clone(),
            news,
            metrics: self.recorder.metrics.clone(),
            detached: detached.clone(),
            ended: ended.clone(),
            ask: ask.clone(),
        };
        if let Some(host_changes) = self.host_changes.take() {
            supervisor.critical("drift repair", watch.run(host_changes));
        }
        // In custom networking ENIs keep the groups that they were created with.
        if !matches!(self.config.pod_subnets, PodSubnets::Custom(_)) {
            let (imds, mac, ask) = (self.imds.clone(), self.me.mac, ask.clone());
            supervisor.restarted("security groups", move || {
                groups::follow(imds.clone(), mac, ask.clone())
            });
        }
        let (executor, told) = (self.executor.clone(), pool.clone());
        supervisor.restarted("unknown ENIs", move || {
            discovery::follow_enis(ask.clone(), executor.clone(), told.clone())
        });
        ended
    }

    /// Opens the live page. If its port is in use, the node serves pods anyway.
    fn introspect(&self, pool: &Pool, sandboxes: Sandboxes, detached: &Detached) {
        let Some(bind) = &self.config.introspection else {
            return;
        };
        let sources = introspection::Sources {
            pool: pool.clone(),
            sandboxes,
            me: self.me.clone(),
            config: Arc::new(self.config.clone()),
            history: self.recorder.history.clone(),
            detached: detached.clone(),
        };
        match introspection::start(bind, sources) {
            Ok(()) => tracing::info!(%bind, "serving introspection"),
            Err(error) => tracing::error!(%bind, %error, "introspection cannot be served"),
        }
    }

    /// If the port is in use, the daemon serves pods nevertheless.
    fn serve_probes(&self, pool: &Pool) {
        let address = self.config.probes;
        if let Err(error) = probes::start(address, pool.clone()) {
            tracing::error!(%address, %error, "cannot serve probes");
        }
    }

    /// Writes the runtime's configuration as soon as pods can be served.
    fn announce(&self, pool: &Pool, socket: PathBuf, supervisor: &mut Supervisor) {
        let Some(directory) = self.config.paths.cni_conf_dir.clone() else {
            return;
        };
        let conflist = Conflist {
            directory,
            plugins: self.config.paths.cni_bin_dir.clone(),
            pods: self.config.pods,
            socket,
            network: self.config.network.clone(),
            family: self.config.pool.family,
            metrics: self.recorder.metrics.clone(),
        };
        let pool = pool.clone();
        supervisor.restarted("conflist", move || conflist.clone().publish(pool.clone()));
    }
}

async fn until_stopped(supervisor: &mut Supervisor) -> Result<(), DaemonError> {
    let hook = |kind| signal(kind).map_err(|source| serve_error("signals", source));
    let (mut term, mut int) = (
        hook(SignalKind::terminate())?,
        hook(SignalKind::interrupt())?,
    );
    tokio::select! {
        _ = term.recv() => Ok(()),
        _ = int.recv() => Ok(()),
        ended = supervisor.first_end() => Err(DaemonError::TaskEnded(ended)),
    }
}

fn listen(
    path: &Path,
    service: Service,
    slots: ConnectionSlots,
    supervisor: &mut Supervisor,
    detached: Detached,
) -> Result<sync::watch::Sender<()>, DaemonError> {
    let listener = listener::bind(path)
        .map_err(|source| serve_error(&format!("\"{}\"", path.display()), source))?;
    let (stop, stopped) = sync::watch::channel(());
    let served = listener::serve(listener, slots, service, stopped, detached);
    supervisor.critical("listener", served);
    Ok(stop)
}

/// The identity of this node. It does not change while the machine runs, so a restarted daemon needs no metadata
/// service.
async fn identity(
    imds: &Metadata,
    store: &Store,
    known: Option<Identity>,
) -> Result<Arc<Identity>, DaemonError> {
    let me = match known {
        Some(me) => me,
        None => {
            let me = imds.identity().await?;
            store.remember_identity(&me)?;
            me
        }
    };
    tracing::info!(instance = me.instance, kind = me.instance_type, address = %me.address, "this node");
    Ok(Arc::new(me))
}

/// Where the pool creates ENIs, from the settings and from what the previous process knew.
fn placement(config: &Config, me: &Identity, contents: &Contents) -> Placement {
    let class = match &config.pod_subnets {
        PodSubnets::Primary => Ok(EniClass::like_primary()),
        PodSubnets::Discovery => Ok(EniClass::by_tags(config.cloud.cluster.clone())),
        PodSubnets::Custom(_) => {
            let unread = || kube::unread(&config.kubernetes);
            contents.class.clone().ok_or_else(unread)
        }
    };
    Placement {
        class,
        subnets: contents.subnets.clone(),
        ..me.placement()
    }
}

/// The last known CIDR blocks of the VPC. They may change while the machine runs, and [`Follower`] updates them.
async fn vpc_blocks(
    imds: &Metadata,
    store: &Store,
    me: &Identity,
    known: Vec<Ipv4Net>,
) -> Result<Vec<Ipv4Net>, DaemonError> {
    if !known.is_empty() {
        return Ok(known);
    }
    let blocks = imds.vpc_blocks(me.mac).await?;
    store.remember_vpc_blocks(&blocks)?;
    Ok(blocks)
}

/// The export of spans, if it is enabled. The zone is only for spans, and the start does not wait long for it.
async fn spans(config: &Config, me: &Identity, imds: &Metadata, metrics: &Arc<Metrics>) -> Spans {
    let Some(settings) = &config.spans else {
        return Spans::default();
    };
    let zone = tokio::time::timeout(ZONE_LIMIT, imds.zone()).await;
    let zone = zone.ok().and_then(Result::ok);
    let origin = Origin {
        me,
        zone: zone.as_deref(),
        node: config.kubernetes.node.as_deref(),
    };
    Spans::start(settings, origin, metrics)
}

fn make_run_dir(config: &Config) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    let path = &config.paths.run_dir;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.map_err(|source| DaemonError::RunDirectory {
        path: path.clone(),
        source,
    })
}

/// The kernel's id of this boot.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Different for each node and start, so that the back-offs and ClientTokens of a fleet do not coincide.
fn seed(boot: &str) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write(boot.as_bytes());
    hasher.finish()
}

fn serve_error(what: &str, source: io::Error) -> DaemonError {
    DaemonError::Serve {
        what: what.to_owned(),
        source,
    }
}
