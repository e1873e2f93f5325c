//! The parts that exist before anything runs: the state file, the node's identity, its network, and the pods on which records
//! and kernel agree.

use std::{io, sync::Arc, time::Duration};

use datapath::host::HostMonitor;
use ipnet::Ipv4Net;
use planner::{EniClass, Family, InstanceType, Mono, Observed, Placement};
use proto::error_chain::chain;

use super::{DaemonError, serve_error};
use crate::{
    config::{Config, PodSubnets},
    ec2::{aws::Aws, executor::Executor, instance_type, own_thread::OwnThread},
    host::{hostnet::HostNet, predecessor, vpc_blocks},
    install::handback,
    kube,
    node::{identity::Identity, metadata::Metadata},
    pool::discovery,
    runtime::{clock, worker::Worker},
    sandbox::{
        recovery::{self, Agreed},
        takeover::{self, Takeover},
    },
    state::{
        aws_node,
        store::{Contents, Store},
    },
    telemetry::{
        metrics::Metrics,
        recorder::Recorder,
        spans::{Origin, Spans},
    },
};

/// How long the start waits for data that only spans use.
const ZONE_LIMIT: Duration = Duration::from_secs(1);

/// The parts that exist before anything runs.
pub(super) struct Node {
    pub(super) begun: Mono,
    pub(super) config: Config,
    pub(super) recorder: Recorder,
    pub(super) me: Arc<Identity>,
    pub(super) kind: InstanceType,
    pub(super) host: HostNet,
    /// Until the drift repair takes them.
    pub(super) host_changes: Option<HostMonitor>,
    pub(super) executor: Executor,
    pub(super) store: Worker<Store>,
    pub(super) agreed: Agreed,
    /// ENIs that the previous process was creating when it ended.
    pub(super) intents: Vec<String>,
    pub(super) boot: String,
    pub(super) imds: Metadata,
    pub(super) vpc_blocks: Vec<Ipv4Net>,
    pub(super) placement: Placement,
}

impl Node {
    /// Continues where the previous process ended: with its state file, its network and its pods.
    pub(super) async fn prepare(config: Config) -> Result<Self, DaemonError> {
        let begun = clock::now();
        let metrics = Arc::new(Metrics::new());
        metrics.settings(&config.notices);
        let boot = boot_id().map_err(|source| serve_error("the boot id", source))?;
        make_run_dir(&config)?;
        let (store, contents) = Store::open(&config.paths.state(), &boot)?;
        let running = predecessor::running(config.pool.family, &config.paths.socket())?;
        let forgotten = handback::forget(&config.paths);
        forgotten.map_err(|source| serve_error("the mark of a handback", source))?;
        let imds = Metadata::new(config.cloud.timeout);
        let me = identity(&imds, &store, contents.identity.clone()).await?;
        let vpc_blocks = vpc_blocks(&imds, &store, &me, contents.vpc_blocks.clone()).await?;
        // Pods that had it when it was switched off keep it.
        let mut records = contents.records.iter();
        let other_family = config.egress.other_family || records.any(|r| r.egress.is_some());
        let egress = vpc_blocks::egress(&config.egress, &me, &vpc_blocks, other_family);
        let placement = placement(&config, &me, &contents);
        let aws = aws(&config, &me).await;
        let kind = instance_type(&config, &me, &aws).await?;
        let spans = spans(&config, &me, &imds, &metrics).await;
        let ec2 = OwnThread::start(aws).map_err(|e| serve_error("EC2 calls", e))?;
        let executor = Executor::new(
            Arc::new(ec2),
            me.clone(),
            config.cloud.clone(),
            metrics.clone(),
        )
        .knowing(&contents.subnets)
        .with_spans(spans.clone());
        let intents = contents.intents.clone();
        let takeover = takeover::settings(&config, &kind);
        // Before anything is changed on the node.
        let list = || discovery::attached(&executor);
        let enis = takeover::refuse_or_list(&takeover, list).await?;
        let (family, network) = (config.pool.family, &config.network);
        let (host, host_changes) =
            HostNet::start(&me, family, network, egress, &running, metrics.clone())?;
        let takeover = (takeover, enis);
        let agreed = agree(&config, &store, contents, &host, &executor, takeover).await?;
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
}

/// Compares the records with the kernel, after the pods of the AWS VPC CNI got records too.
async fn agree(
    config: &Config,
    store: &Store,
    mut contents: Contents,
    host: &HostNet,
    executor: &Executor,
    (takeover, enis): (takeover::Settings, Option<Vec<Observed>>),
) -> Result<Agreed, DaemonError> {
    let adopted = match Takeover::look(takeover, host).await? {
        Some(due) => {
            let enis = match enis {
                Some(enis) => enis,
                None => discovery::attached(executor).await,
            };
            let records = (store, &mut contents);
            Some(due.begin(records, host, enis, clock::now()).await?)
        }
        None => None,
    };
    let cooldown = config.pool.cooldown;
    let mut agreed = recovery::agree(store, contents, host, cooldown, clock::now()).await?;
    let known = agreed.restored.enis.iter();
    let known = known.map(|eni| (eni.mac, eni.primary)).collect();
    let here = host.enis_with_link(known).await;
    let here = here.map_err(recovery::RecoveryError::from)?;
    agreed.keep_linked(&here);
    if !agreed.explained_by(&agreed.restored.enis) {
        let pods = agreed.orphans.len();
        tracing::warn!(
            pods,
            "found pods without a record: asking EC2 for their addresses"
        );
        agreed.restored.enis = discovery::attached(executor).await;
    }
    agreed.adopt(store)?;
    host.keep(&agreed.pods).await;
    if let Some(adopted) = adopted {
        adopted.finish(store, host, &mut agreed).await?;
    }
    if let Err(error) = aws_node::guard(&config.takeover.directory) {
        let error = chain(&error);
        tracing::warn!(error, "an aws-node that is started by mistake would serve");
    }
    Ok(agreed)
}

async fn aws(config: &Config, me: &Identity) -> Arc<Aws> {
    let cloud = &config.cloud;
    Arc::new(Aws::new(me.region.clone(), &cloud.proxies, cloud.timeout).await)
}

async fn instance_type(
    config: &Config,
    me: &Identity,
    aws: &Aws,
) -> Result<InstanceType, DaemonError> {
    let kind = instance_type::known_or_asked(&me.instance_type, aws).await?;
    if config.pool.family == Family::V6 && !kind.supports_prefixes() {
        return Err(DaemonError::NoPrefixes(me.instance_type.clone()));
    }
    Ok(kind)
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
