//! What Kubernetes says about this node: it follows the daemon's own Node object, and no other.
//!
//! Only warm growth hangs on it, never an ADD or DEL: while the API server is away, slow or wrong, the pool goes on with
//! the last word. This file must not write to the cluster, and keeps nothing of the object but one bit.

mod node;

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

/// The longest silence on a connection. A watch is renewed sooner than that by the library (290 s), so only a list that
/// nobody answers, or a peer that is gone without a word, runs into it.
const SILENCE: Duration = Duration::from_secs(300);

/// Why the Node is not followed. Every one of them is a way to run, not a fault.
#[derive(Debug, thiserror::Error)]
pub enum Off {
    #[error("MY_NODE_NAME is not set")]
    NoName,
    #[error("no cluster is configured")]
    NoCluster(#[source] Box<InferConfigError>),
    #[error("CLUSTER_ENDPOINT={endpoint} is no URL")]
    Endpoint { endpoint: String },
    #[error("no client can be made for {url}")]
    Client {
        url: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Tells `pool` of every cordon, release and termination, for ever; or says once why it will not.
pub async fn follow(settings: Kubernetes, pool: Pool) {
    let (client, node) = match open(settings).await {
        Ok(found) => found,
        Err(off) => {
            let reason = chain(&off);
            tracing::info!(reason, "the Node object is not followed");
            return;
        }
    };
    let mut words = std::pin::pin!(words(client, &node));
    while let Some(schedulable) = words.next().await {
        tracing::info!(node, schedulable, "word from Kubernetes on this node");
        let event = PoolEvent::Node {
            schedulable,
            stopping: false,
        };
        pool.tell(event).await;
    }
}

/// The cluster that a kubeconfig or the pod's own service account names.
async fn open(settings: Kubernetes) -> Result<(Client, String), Off> {
    let node = settings.node.ok_or(Off::NoName)?;
    let mut config = kube::Config::infer()
        .await
        .map_err(|e| Off::NoCluster(Box::new(e)))?;
    // The Service's address works only once kube-proxy does, and that may wait for us (upstream v1.12.1).
    if let Some(endpoint) = settings.endpoint {
        config.cluster_url = endpoint
            .parse()
            .map_err(|_invalid| Off::Endpoint { endpoint })?;
    }
    Ok((client(config)?, node))
}

/// A client that gives up on a silent peer.
///
/// # Errors
/// [`Off::Client`] if the configuration's certificates or credentials cannot be used.
pub fn client(mut config: kube::Config) -> Result<Client, Off> {
    config.read_timeout = Some(SILENCE);
    // Or the time that a pooled connection lay idle would count as the peer's silence.
    config.reset_reader_on_write = true;
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| Off::Client {
        url,
        source: Box::new(source),
    })
}

/// Whether `node` takes pods, whenever that changes; it is taken to, until the first word. Reconnects, lists again after
/// a gap and backs off with jitter (0.8 to 30 s) by itself, and so never ends.
pub fn words(client: Client, node: &str) -> impl Stream<Item = bool> + Send + use<> {
    let nodes: Api<OwnNode> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
    // From the API server's cache: a fleet that starts at once must not read etcd once per node. An answer that is
    // behind costs nothing, since the watch continues from where the answer stands.
    let own = watcher::Config::default()
        .fields(&format!("metadata.name={node}"))
        .any_semantic();
    let mut word = Word::default();
    watcher(nodes, own)
        .default_backoff()
        .filter_map(move |event| word.take(event))
}

/// The last word.
#[derive(Debug)]
struct Word {
    schedulable: bool,
    /// The API server did not answer when last asked; logged once.
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
    /// The new word, if it is one.
    fn take(&mut self, event: Result<Event<OwnNode>, watcher::Error>) -> Option<bool> {
        let now = match event {
            // Said before the list is asked for: nobody has answered yet.
            Ok(Event::Init) => return None,
            Ok(Event::InitApply(node) | Event::Apply(node)) => schedulable(&node),
            // The object went, the machine goes next: as with termination, warming it would be waste.
            Ok(Event::Delete(_)) => false,
            // A list without our node is a cache that does not know it yet, or no longer: the last word stands.
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
        // 410 Gone: the server forgot what came since our last word. The library lists again; nobody is away.
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return;
        }
        if !std::mem::replace(&mut self.away, true) {
            let error = chain(error);
            tracing::warn!(
                error,
                schedulable = self.schedulable,
                "the API server does not answer; the last word on this node stands"
            );
        }
    }
}

#[cfg(test)]
mod tests;
