//! This node in its cluster: watches the daemon's own Node object, and writes to it what operators need to know.
//!
//! Only warm growth depends on it, never an ADD or DEL: while the API server is unavailable, slow or wrong, the pool
//! uses the last known state. Reads and writes no other object than the Node and its events.
//!
//! May use `runtime`, `config` and `pool`. Must not know requests, ENIs or the kernel.

mod conditions;
mod node;
mod report;

pub use report::report;

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::ApiResource,
    config::InferConfigError,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use planner::Event as PoolEvent;
use proto::error_chain::chain;
use tokio_stream::{Stream, StreamExt};

use crate::{config::Kubernetes, pool::driver::Pool};
use node::{OwnNode, schedulable};

/// The maximum silence on a connection. The library renews a watch sooner (290 s), so only an unanswered list or a
/// vanished peer reaches this limit.
const SILENCE: Duration = Duration::from_secs(300);

/// Why the Node is not watched. All of these are valid ways to run, not faults.
#[derive(Debug, thiserror::Error)]
pub enum NotFollowed {
    #[error("MY_NODE_NAME is not set")]
    NoName,
    #[error("no cluster is configured")]
    NoCluster(#[source] Box<InferConfigError>),
    #[error("CLUSTER_ENDPOINT={endpoint} is not a URL")]
    Endpoint { endpoint: String },
    #[error("no client can be created for {url}")]
    Client {
        url: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Notifies `pool` of every cordon, uncordon and termination, forever; or logs once why the Node is not watched.
pub async fn follow(settings: Kubernetes, pool: Pool) {
    let (client, node) = match open(settings).await {
        Ok(found) => found,
        Err(off) => {
            let reason = chain(&off);
            tracing::info!(reason, "the Node object is not watched");
            return;
        }
    };
    let mut schedulable_changes = std::pin::pin!(schedulable_changes(client, &node));
    while let Some(schedulable) = schedulable_changes.next().await {
        tracing::info!(node, schedulable, "the Node object has changed");
        let event = PoolEvent::Node {
            schedulable,
            stopping: false,
        };
        pool.tell(event).await;
    }
}

/// The cluster of a kubeconfig or of the pod's own service account.
async fn open(settings: Kubernetes) -> Result<(Client, String), NotFollowed> {
    let node = settings.node.ok_or(NotFollowed::NoName)?;
    let mut config = kube::Config::infer()
        .await
        .map_err(|e| NotFollowed::NoCluster(Box::new(e)))?;
    // The Service's address works only when kube-proxy runs, which may itself wait for the pod network (upstream
    // v1.12.1).
    if let Some(endpoint) = settings.endpoint {
        config.cluster_url = endpoint
            .parse()
            .map_err(|_invalid| NotFollowed::Endpoint { endpoint })?;
    }
    Ok((client(config)?, node))
}

/// A client with a time limit for a silent peer.
///
/// # Errors
/// [`NotFollowed::Client`] if the configuration's certificates or credentials are invalid.
pub fn client(mut config: kube::Config) -> Result<Client, NotFollowed> {
    config.read_timeout = Some(SILENCE);
    // Otherwise the idle time of a pooled connection would count as silence of the peer.
    config.reset_reader_on_write = true;
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| NotFollowed::Client {
        url,
        source: Box::new(source),
    })
}

/// Whether `node` accepts pods, whenever that changes; until the first answer, it does. The stream reconnects, lists
/// again after a gap and backs off with jitter (0.8 to 30 s), and never ends.
pub fn schedulable_changes(client: Client, node: &str) -> impl Stream<Item = bool> + Send + use<> {
    let nodes: Api<OwnNode> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
    // From the API server's cache: a fleet that starts at once must not read etcd once per node. A stale answer does no
    // harm, because the watch continues from its version.
    let own = watcher::Config::default()
        .fields(&format!("metadata.name={node}"))
        .any_semantic();
    let mut word = Word::default();
    watcher(nodes, own)
        .default_backoff()
        .filter_map(move |event| word.take(event))
}

/// The last known state.
#[derive(Debug)]
struct Word {
    schedulable: bool,
    /// The API server did not answer the last request; logged once.
    away: bool,
}

impl Default for Word {
    fn default() -> Self {
        Self {
            schedulable: true,
            away: false,
        }
    }
}

impl Word {
    /// The new state, if it changed.
    fn take(&mut self, event: Result<Event<OwnNode>, watcher::Error>) -> Option<bool> {
        let now = match event {
            // Sent before the list is requested: there is no answer yet.
            Ok(Event::Init) => return None,
            Ok(Event::InitApply(node) | Event::Apply(node)) => schedulable(&node),
            // The object was deleted and the machine will be next: as with termination, warm addresses would be wasted.
            Ok(Event::Delete(_)) => false,
            // A list without our node is from a cache that does not contain it yet, or any more: the last state is
            // kept.
            Ok(Event::InitDone) => self.schedulable,
            Err(error) => {
                self.lost(&error);
                return None;
            }
        };
        if std::mem::take(&mut self.away) {
            tracing::info!("the API server answers again");
        }
        let changed = std::mem::replace(&mut self.schedulable, now) != now;
        changed.then_some(now)
    }

    fn lost(&mut self, error: &watcher::Error) {
        // 410 Gone: the server no longer has the changes since our last version. The library lists again; the server is
        // not unavailable.
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return;
        }
        if !std::mem::replace(&mut self.away, true) {
            let error = chain(error);
            tracing::warn!(
                error,
                schedulable = self.schedulable,
                "the API server does not answer; keeping the last known state of this node"
            );
        }
    }
}

#[cfg(test)]
mod tests;
