//! `ipamd run`: creates the parts of the daemon in the order of their dependencies, and stops them again.
//!
//! `prepare` reads what the previous process left and compares it with the kernel, `tasks` starts the pool and what tells it
//! of changes, and `serve` opens the sockets.
//!
//! May use every other folder, but not `tools`. Must not know how a part does its work.

mod prepare;
mod serve;
mod tasks;

pub use prepare::boot_id;

use std::{io, path::PathBuf, time::Duration};

use planner::Event;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    config::Config,
    ec2::instance_type::InstanceTypeError,
    host::{hostnet::StartError, predecessor::StillRunning},
    node::identity::MetadataError,
    pool::checkpoint,
    runtime::supervise::{Detached, Supervisor},
    sandbox::{recovery::RecoveryError, takeover::TakeoverError},
    state::store::StoreError,
};
use prepare::Node;

/// How long shutdown waits for requests in progress.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

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
    #[error("could not configure the node's network")]
    Host(#[from] StartError),
    #[error("could not compare records with the kernel")]
    Recovery(#[from] RecoveryError),
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
    let mut node = Node::prepare(config).await?;
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
    node.host.stale_connections().forget_moved().await;
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

fn serve_error(what: &str, source: io::Error) -> DaemonError {
    DaemonError::Serve {
        what: what.to_owned(),
        source,
    }
}
