//! This node in its cluster: watches the daemon's own Node object and, in custom networking, its ENIConfig, and writes to the
//! Node what operators need to know.
//!
//! Only growth depends on it, never an ADD or DEL: while the API server is unavailable, slow or wrong, the pool uses the
//! last known state. Reads and writes no other object than the Node, its events and its ENIConfig.
//!
//! May use `runtime`, `config` and `pool`. Must not know requests, ENIs or the kernel.

mod conditions;
mod connection;
mod eni_config;
mod node;
mod place;
mod report;

pub use conditions::Announced;
pub use connection::{NotFollowed, client};
pub use report::report;

use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client,
    api::ApiResource,
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use planner::{EniClass, Event as PoolEvent, placement::NoClass};
use proto::error_chain::chain;
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt};

use crate::{
    config::{EniConfigKeys, Kubernetes},
    pool::driver::Pool,
};
use connection::{open, told};
use eni_config::Follower;
use node::OwnNode;
use place::Readings;

pub use node::{NodeState, Uid};

/// How the node's ENIs get their class in custom networking.
#[derive(Clone, Debug)]
pub struct CustomNetworking {
    pub keys: EniConfigKeys,
    /// What the pool has started with.
    pub known: Result<EniClass, NoClass>,
}

/// The class before the API server has answered.
#[must_use]
pub fn unread(settings: &Kubernetes) -> NoClass {
    let node = settings.node.as_deref().unwrap_or_default();
    NoClass {
        why: format!("the API server has not told the ENIConfig of the Node \"{node}\" yet"),
        remedy: "check that the daemon reaches the API server, and that MY_NODE_NAME is the name of the Node"
            .to_owned(),
    }
}

/// Reads the node's ENIConfig once: its class, or why it cannot be used.
///
/// # Errors
/// A clause: why the Node or its ENIConfig cannot be read.
pub async fn class_of_node(
    settings: Kubernetes,
    keys: EniConfigKeys,
) -> Result<Result<EniClass, NoClass>, String> {
    let (client, node) = open(settings).await.map_err(|error| chain(&error))?;
    let nodes: Api<OwnNode> = Api::all_with(client.clone(), &ApiResource::erase::<Node>(&()));
    let own = nodes.get(&node).await.map_err(|error| told(&error))?;
    let name = eni_config::name_of(&own.metadata, &keys);
    let reading = place::read(client, &name)
        .await
        .map_err(|error| told(&error))?;
    let unread = NoClass {
        why: String::new(),
        remedy: String::new(),
    };
    let mut follower = Follower::new(keys, Err(unread.clone()));
    Ok(follower.read(&name, reading).unwrap_or(Err(unread)))
}

/// Notifies `pool` of every cordon, uncordon and termination and, in custom networking, of every change of the node's
/// ENIConfig, and `uid` of every new object of the Node, forever; or logs once why the Node is not watched.
pub async fn follow(
    settings: Kubernetes,
    custom: Option<CustomNetworking>,
    uid: watch::Sender<Uid>,
    pool: Pool,
) {
    let (client, node) = match open(settings).await {
        Ok(found) => found,
        Err(off) => {
            let reason = chain(&off);
            if custom.is_some() {
                tracing::error!(
                    reason,
                    "the Node object is not watched: its ENIConfig is not known"
                );
            } else {
                tracing::info!(reason, "the Node object is not watched");
            }
            return;
        }
    };
    let keys = custom.as_ref().map(|custom| custom.keys.clone());
    let mut configs = custom.map(|custom| Configs {
        follower: Follower::new(custom.keys, custom.known),
        name: String::new(),
        readings: None,
    });
    let mut states = std::pin::pin!(node_states(client.clone(), &node, keys));
    let mut schedulable = true;
    loop {
        // Both arms are cancel-safe: a stream keeps what was not taken.
        tokio::select! {
            state = states.next() => {
                let Some(state) = state else { return };
                let anew = state.uid.is_some() && *uid.borrow() != state.uid;
                if anew {
                    uid.send_replace(state.uid);
                }
                if let (Some(configs), Some(name)) = (&mut configs, state.eni_config) {
                    configs.name(&client, name);
                }
                if std::mem::replace(&mut schedulable, state.schedulable) == state.schedulable {
                    continue;
                }
                tracing::info!(node, schedulable, "the Node object has changed");
                let event = PoolEvent::Node {
                    schedulable,
                    stopping: false,
                };
                pool.tell(event).await;
            }
            event = Configs::next(&mut configs) => pool.tell(event).await,
        }
    }
}

/// The ENIConfig that the Node names.
struct Configs {
    follower: Follower,
    name: String,
    readings: Option<Readings>,
}

impl Configs {
    fn name(&mut self, client: &Client, name: String) {
        if self.readings.is_some() && self.name == name {
            return;
        }
        tracing::info!(eni_config = name, "the Node names its ENIConfig");
        self.readings = Some(place::readings(client.clone(), &name));
        self.name = name;
    }

    /// What is new for the pool. Waits for ever if there is nothing to follow.
    async fn next(all: &mut Option<Self>) -> PoolEvent {
        let Some(configs) = all else {
            return std::future::pending().await;
        };
        let Some(readings) = &mut configs.readings else {
            return std::future::pending().await;
        };
        while let Some(reading) = readings.next().await {
            let Some(class) = configs.follower.read(&configs.name, reading) else {
                continue;
            };
            match &class {
                Ok(class) => {
                    let groups = class.security_groups.iter().flatten();
                    let groups: Vec<_> = groups.map(|group| group.0.as_str()).collect();
                    let groups = groups.join(", ");
                    let EniClass { name, subnets, .. } = class;
                    tracing::info!(name, %subnets, groups, "new ENIs are like the node's ENIConfig");
                }
                Err(none) => {
                    tracing::error!(reason = %none, remedy = none.remedy, "no ENI can be created")
                }
            }
            return PoolEvent::Class(class);
        }
        std::future::pending().await
    }
}

/// What matters of `node`, whenever that changes; until the first answer, it accepts pods. With `keys`, the name of its
/// ENIConfig matters too. The stream reconnects, lists again after a gap and backs off with jitter (0.8 to 30 s), and never
/// ends.
pub fn node_states(
    client: Client,
    node: &str,
    keys: Option<EniConfigKeys>,
) -> impl Stream<Item = NodeState> + Send + use<> {
    let nodes: Api<OwnNode> = Api::all_with(client, &ApiResource::erase::<Node>(&()));
    // From the API server's cache: a fleet that starts at once must not read etcd once per node. A stale answer does no
    // harm, because the watch continues from its version.
    let own = watcher::Config::default()
        .fields(&format!("metadata.name={node}"))
        .any_semantic();
    let mut word = Word::new(keys);
    watcher(nodes, own)
        .default_backoff()
        .filter_map(move |event| word.take(event))
}

/// The last known state.
#[derive(Debug)]
struct Word {
    state: NodeState,
    keys: Option<EniConfigKeys>,
    /// The API server did not answer the last request; logged once.
    away: bool,
}

impl Word {
    fn new(keys: Option<EniConfigKeys>) -> Self {
        Self {
            state: NodeState {
                schedulable: true,
                eni_config: None,
                uid: None,
            },
            keys,
            away: false,
        }
    }

    /// The new state, if it changed.
    fn take(&mut self, event: Result<Event<OwnNode>, watcher::Error>) -> Option<NodeState> {
        let now = match event {
            // Sent before the list is requested: there is no answer yet.
            Ok(Event::Init) => return None,
            Ok(Event::InitApply(node) | Event::Apply(node)) => {
                NodeState::of(&node, self.keys.as_ref())
            }
            // The object was deleted and the machine will be next: as with termination, warm addresses would be wasted.
            Ok(Event::Delete(_)) => NodeState {
                schedulable: false,
                ..self.state.clone()
            },
            // A list without our node is from a cache that does not contain it yet, or any more: the last state is
            // kept.
            Ok(Event::InitDone) => self.state.clone(),
            Err(error) => {
                self.lost(&error);
                return None;
            }
        };
        if std::mem::take(&mut self.away) {
            tracing::info!("the API server answers again");
        }
        let changed = std::mem::replace(&mut self.state, now.clone()) != now;
        changed.then_some(now)
    }

    fn lost(&mut self, error: &watcher::Error) {
        // 410 Gone: the server no longer has the changes since our last version. The library lists again; the server is
        // not unavailable.
        if matches!(error, watcher::Error::WatchError(status) if status.code == 410) {
            return;
        }
        if !std::mem::replace(&mut self.away, true) {
            let error = told(error);
            tracing::warn!(
                error,
                schedulable = self.state.schedulable,
                "the API server does not answer; keeping the last known state of this node"
            );
        }
    }
}

#[cfg(test)]
mod tests;
