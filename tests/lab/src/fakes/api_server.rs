//! An API server with one Node: lists and watches of it, and the faults that real servers cause for watchers.
//!
//! It serves plain HTTP at an address that the caller has bound, so that it can run in a node's namespace, and checks
//! no credentials. It knows only the Node.

use std::{
    collections::BTreeMap,
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    response::{IntoResponse, Response},
    routing::get,
};
use ipamd::runtime::supervise::Detached;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;

/// See the module. Dropping it closes the port and all connections.
#[derive(Debug)]
pub struct ApiServer {
    pub address: SocketAddr,
    world: Arc<watch::Sender<World>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug)]
struct World {
    node: Value,
    /// The Node's resource version; every change increments it.
    version: u64,
    /// Watches that would start before this version are answered with 410.
    horizon: u64,
    /// Connections of an earlier era are closed.
    era: u64,
    lists: u32,
    watches: u32,
}

impl ApiServer {
    /// Serves a schedulable Node named `name` on `listener`.
    ///
    /// # Errors
    /// If the server's thread or runtime cannot be created.
    pub fn start(listener: TcpListener, name: &str) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let world = Arc::new(watch::Sender::new(World {
            node: json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": {} }),
            version: 7,
            horizon: 0,
            era: 0,
            lists: 0,
            watches: 0,
        }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let router = Router::new()
            .route("/api/v1/nodes", get(nodes))
            .with_state(Arc::clone(&world));
        let serve = async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            // Told to stop, or the sender is gone.
            tokio::select! {
                _ = stopped => {}
                _ = axum::serve(listener, router).into_future() => {}
            }
        };
        let thread = std::thread::Builder::new()
            .name("apiserver".to_owned())
            .spawn(move || runtime.block_on(serve))?;
        Ok(Self {
            address,
            world,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Sets `spec.unschedulable`, like `kubectl cordon`.
    pub fn cordon(&self, cordoned: bool) {
        self.change(|node| node["spec"]["unschedulable"] = json!(cordoned));
    }

    /// Changes the Node and notifies its watchers.
    pub fn change(&self, change: impl FnOnce(&mut Value)) {
        self.world.send_modify(|world| {
            change(&mut world.node);
            world.version += 1;
        });
    }

    /// Closes every watch in the middle of its stream.
    pub fn cut(&self) {
        self.world.send_modify(|world| world.era += 1);
    }

    /// Discards the history: watchers must list again.
    pub fn expire(&self) {
        self.world.send_modify(|world| {
            world.version += 1;
            world.horizon = world.version;
        });
    }

    /// How often the Node was listed and watched.
    #[must_use]
    pub fn asked(&self) -> (u32, u32) {
        let world = self.world.borrow();
        (world.lists, world.watches)
    }

    /// Writes a kubeconfig for this server.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> io::Result<()> {
        let server = format!("http://{}", self.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": { "server": server } }],
            "users": [{ "name": "lab", "user": {} }],
            "contexts": [{ "name": "lab", "context": { "cluster": "lab", "user": "lab" } }],
        });
        // JSON is YAML.
        std::fs::write(path, config.to_string())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            drop(thread.join()); // The panic was already printed.
        }
    }
}

type Shared = Arc<watch::Sender<World>>;

async fn nodes(
    State(world): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let of = |name: &str| query.get(name).cloned().unwrap_or_default();
    if of("watch") == "true" {
        let mut era = 0;
        // In one step: a test that has seen the count may cut the connection immediately.
        world.send_modify(|world| {
            world.watches += 1;
            era = world.era;
        });
        return follow(&world, era, of("resourceVersion").parse().unwrap_or(0));
    }
    world.send_modify(|world| world.lists += 1);
    let now = world.borrow().clone();
    let named = format!(
        "metadata.name={}",
        now.node["metadata"]["name"].as_str().unwrap_or_default()
    );
    let items = (of("fieldSelector") == named).then(|| now.numbered());
    let list = json!({
        "apiVersion": "v1", "kind": "NodeList", "metadata": { "resourceVersion": now.version.to_string() },
        "items": items.into_iter().collect::<Vec<_>>(),
    });
    list.to_string().into_response()
}

impl World {
    fn numbered(&self) -> Value {
        let mut node = self.node.clone();
        node["metadata"]["resourceVersion"] = json!(self.version.to_string());
        node
    }
}

/// The watch's stream: one JSON per line, as long as the client stays connected.
fn follow(world: &Shared, era: u64, seen: u64) -> Response {
    let (lines, body) = mpsc::channel(16);
    let changes = world.subscribe();
    drop(Detached::default().spawn_idle(async move {
        tokio::select! {
            () = lines.closed() => {}
            () = feed(changes, era, seen, &lines) => {}
        }
    }));
    Body::from_stream(ReceiverStream::new(body)).into_response()
}

async fn feed(
    mut changes: watch::Receiver<World>,
    era: u64,
    mut seen: u64,
    lines: &mpsc::Sender<io::Result<String>>,
) {
    loop {
        let now = changes.borrow_and_update().clone();
        let (line, last) = if now.era != era {
            (Some(Err(io::ErrorKind::ConnectionReset.into())), true)
        } else if seen < now.horizon {
            let gone = json!({ "kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
                               "message": "too old resource version" });
            (Some(Ok(event("ERROR", &gone))), true)
        } else if seen < now.version {
            (Some(Ok(event("MODIFIED", &now.numbered()))), false)
        } else {
            (None, false)
        };
        seen = seen.max(now.version);
        if let Some(line) = line
            && (lines.send(line).await.is_err() || last)
        {
            return;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({ "type": kind, "object": object }))
}

#[cfg(test)]
mod tests;
