//! `ipamd run`: puts the parts together, in the order in which they may be trusted, and takes them apart again.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use planner::{Event, Planner, limits};
use proto::v1::node_server::NodeServer;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::{
    admin,
    clock::Clock,
    cloud::{
        aws::Aws,
        executor::Executor,
        identity::{Identity, MetadataError},
    },
    config::Config,
    grpc::Service,
    hostnet::{HostNet, StartError},
    listener,
    metrics::Metrics,
    pool::{Driver, Pool},
    recovery,
    sandboxes::Sandboxes,
    store::{Record, Store, StoreError},
    supervise::{Detached, Supervisor},
    worker::Worker,
};

/// How long shutdown waits for requests under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
/// The largest request: a Gc of a full node is some tens of kilobytes.
const REQUEST_LIMIT: usize = 1 << 20;

/// Why the daemon could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("could not prepare \"{}\"", path.display())]
    RunDirectory { path: PathBuf, source: io::Error },
    #[error("could not open the durable state")]
    Store(#[from] StoreError),
    #[error("could not learn who this node is")]
    Identity(#[from] MetadataError),
    #[error("could not tell what this instance can hold")]
    InstanceType(#[from] planner::limits::UnknownType),
    #[error("could not take over the node's network")]
    Host(#[from] StartError),
    #[error("could not compare records with the kernel")]
    Recovery(#[from] recovery::RecoveryError),
    #[error("EC2 did not tell what is attached to this node: {message}")]
    Inventory { message: String },
    #[error("could not serve {what}")]
    Serve { what: String, source: io::Error },
    #[error("stopped because {0}")]
    TaskEnded(String),
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
/// [`DaemonError`]: the process should exit non-zero and be started again.
pub async fn run(config: Config) -> Result<(), DaemonError> {
    let metrics = Arc::new(Metrics::new());
    let boot = boot_id().map_err(|source| serve_error("the boot id", source))?;
    make_run_dir(&config)?;
    let (store, contents) = Store::open(&config.paths.state(), &boot)?;

    let me = Arc::new(Identity::read(config.cloud.timeout).await?);
    tracing::info!(instance = me.instance, kind = me.instance_type, address = %me.address, "this node");
    let host = HostNet::start(me.mac, &config.network, metrics.clone())?;
    let (restored, records) =
        recovery::agree(&store, contents, &host, config.pool.cooldown).await?;

    let aws = Arc::new(Aws::new(me.region.clone(), config.cloud.timeout).await);
    let executor = Executor::new(aws, me.clone(), config.cloud.clone(), metrics.clone());
    let inventory = inventory(&executor).await?;

    let detached = Detached::default();
    let planner = Planner::new(
        config.pool.clone(),
        limits::require(&me.instance_type)?.clone(),
        me.subnet.clone(),
        seed(&boot),
    );
    let (pool, driver) = Driver::new(
        planner,
        executor,
        host.clone(),
        detached.clone(),
        Clock::Boot,
    );
    let mut supervisor = Supervisor::default();
    supervisor.critical("pool", driver.run());
    pool.tell(Event::Restore(restored)).await;
    pool.tell(Event::Inventory(inventory)).await;

    let sandboxes = sandboxes(&config, &pool, host, store, records, &metrics, &detached)?;
    let service = Service {
        sandboxes,
        pool: pool.clone(),
        detached: detached.clone(),
        me,
        metrics: metrics.clone(),
    };
    let stop = serve(&config, service, &mut supervisor, detached.clone())?;
    if let Some(address) = config.metrics {
        let bound =
            admin::start(address, pool.clone(), metrics).map_err(|e| serve_error("metrics", e))?;
        tracing::info!(%bound, "serving metrics");
    }
    tracing::info!(socket = ?config.paths.socket(), "ready");

    let ended = until_told(&mut supervisor).await;
    pool.tell(Event::Node {
        schedulable: true,
        stopping: true,
    })
    .await;
    stop.send(()).await.ok();
    if !detached.finished(DRAIN_LIMIT).await {
        tracing::warn!(
            seconds = DRAIN_LIMIT.as_secs(),
            "requests were still under way at the end"
        );
    }
    tracing::info!("stopped");
    ended
}

async fn until_told(supervisor: &mut Supervisor) -> Result<(), DaemonError> {
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

fn serve(
    config: &Config,
    service: Service,
    supervisor: &mut Supervisor,
    detached: Detached,
) -> Result<mpsc::Sender<()>, DaemonError> {
    let path = config.paths.socket();
    let listener = listener::bind(&path)
        .map_err(|source| serve_error(&format!("\"{}\"", path.display()), source))?;
    let (ready, connections) = mpsc::channel(64);
    supervisor.critical("listener", listener::accept(listener, ready, detached));
    let (stop, mut stopped) = mpsc::channel::<()>(1);
    let node = NodeServer::new(service).max_decoding_message_size(REQUEST_LIMIT);
    supervisor.critical("grpc", async move {
        // Told to stop, or nobody left who could tell.
        let told = async move { stopped.recv().await.unwrap_or_default() };
        let server = Server::builder()
            .max_concurrent_streams(16)
            .add_service(node);
        if let Err(error) = server
            .serve_with_incoming_shutdown(ReceiverStream::new(connections), told)
            .await
        {
            tracing::error!(%error, "gRPC server failed");
        }
    });
    Ok(stop)
}

fn sandboxes(
    config: &Config,
    pool: &Pool,
    host: HostNet,
    store: Store,
    records: Vec<Record>,
    metrics: &Arc<Metrics>,
    detached: &Detached,
) -> Result<Sandboxes, DaemonError> {
    let store = Worker::start("store", store).map_err(|e| serve_error("the store", e))?;
    Ok(Sandboxes::new(
        pool.clone(),
        host,
        store,
        records,
        config,
        metrics.clone(),
        detached.clone(),
    ))
}

/// EC2's word on what is attached here, which nothing else can replace; asked until it comes or start-up must fail.
async fn inventory(executor: &Executor) -> Result<Vec<planner::Observed>, DaemonError> {
    let mut pause = Duration::from_millis(500);
    for _ in 0..8 {
        match executor.inventory().await {
            Ok(inventory) => return Ok(inventory),
            Err(failure) => tracing::warn!(%failure, ?pause, "EC2 did not answer; asking again"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(10));
    }
    executor
        .inventory()
        .await
        .map_err(|failure| DaemonError::Inventory {
            message: failure.message,
        })
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

fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?
        .trim()
        .to_owned())
}

/// Differs between nodes and starts, so that a fleet's back-offs and ClientTokens do not fall together.
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
