//! An API server with one Node and its ENIConfigs: lists and watches of them, and the faults that real servers cause for
//! watchers.
//!
//! It serves plain HTTP, or HTTPS with certificates on both sides, at an address that the caller has bound, so that it can
//! run in a node's namespace. It checks the token of a request if the test sets one. It takes events and patches of the Node
//! and keeps them.
//!
//! May use no other module. Must not know the daemon, nodes or the VPC.

mod patch;
mod tls;

pub use tls::Identity;

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
    extract::{Path as UrlPath, Query, Request, State},
    http::{StatusCode, header::AUTHORIZATION},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, patch as patched, post},
};
use ipamd::runtime::supervise::Detached;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;

use tls::Secured;

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
    /// The ENIConfigs by name, with the version of the last change. `None` if it was deleted.
    configs: BTreeMap<String, (u64, Option<Value>)>,
    /// The events that clients have created.
    events: Vec<Value>,
    /// The patches of the Node that clients have sent.
    patches: Vec<Value>,
    /// The bearer token of every request. `None` if it is not checked.
    token: Option<String>,
    /// Whether nobody may read Nodes.
    nodes_forbidden: bool,
    /// The resource version; every change increments it.
    version: u64,
    /// Watches that would start before this version are answered with 410.
    horizon: u64,
    /// Connections of an earlier era are closed.
    era: u64,
    lists: u32,
    watches: u32,
    refused: u32,
}

impl ApiServer {
    /// Serves a schedulable Node named `name` on `listener`.
    ///
    /// # Errors
    /// If the server's thread or runtime cannot be created.
    pub fn start(listener: TcpListener, name: &str) -> io::Result<Self> {
        Self::serve(listener, name, None)
    }

    /// The same over HTTPS.
    ///
    /// # Errors
    /// As [`ApiServer::start`], or if a file of `identity` cannot be used.
    pub fn start_secured(
        listener: TcpListener,
        name: &str,
        identity: &Identity,
    ) -> io::Result<Self> {
        Self::serve(listener, name, Some(identity.acceptor()?))
    }

    fn serve(listener: TcpListener, name: &str, acceptor: Option<TlsAcceptor>) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let world = Arc::new(watch::Sender::new(World {
            node: json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name }, "spec": {} }),
            configs: BTreeMap::new(),
            events: Vec::new(),
            patches: Vec::new(),
            token: None,
            nodes_forbidden: false,
            version: 7,
            horizon: 0,
            era: 0,
            lists: 0,
            watches: 0,
            refused: 0,
        }));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (stop, stopped) = oneshot::channel();
        let (router, refusals) = (router(&world), Arc::clone(&world));
        let serve = async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            let served = async {
                match acceptor {
                    Some(acceptor) => {
                        let refused = move || refusals.send_modify(|world| world.refused += 1);
                        axum::serve(
                            Secured {
                                listener,
                                acceptor,
                                refused,
                            },
                            router,
                        )
                        .await
                    }
                    None => axum::serve(listener, router).await,
                }
            };
            // Told to stop, or the sender is gone.
            tokio::select! {
                _ = stopped => {}
                _ = served => {}
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

    /// Creates or changes an ENIConfig.
    pub fn put_config(&self, name: &str, spec: &Value) {
        self.set_config(name, Some(spec));
    }

    /// Deletes an ENIConfig.
    pub fn delete_config(&self, name: &str) {
        self.set_config(name, None);
    }

    fn set_config(&self, name: &str, spec: Option<&Value>) {
        self.world.send_modify(|world| {
            world.version += 1;
            let object = |spec| {
                json!({ "apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig",
                        "metadata": { "name": name }, "spec": spec })
            };
            let entry = (world.version, spec.map(object));
            world.configs.insert(name.to_owned(), entry);
        });
    }

    /// The reasons and messages of the events so far.
    #[must_use]
    pub fn events(&self) -> Vec<(String, String)> {
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        let world = self.world.borrow();
        let events = world.events.iter();
        events
            .map(|event| (text(event, "reason"), text(event, "message")))
            .collect()
    }

    /// The Node as it is now.
    #[must_use]
    pub fn node(&self) -> Value {
        self.world.borrow().node.clone()
    }

    /// Status and reason of a condition of the Node, or nothing.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<(String, String)> {
        let node = self.node();
        let conditions = node["status"]["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == kind)?;
        let text = |key: &str| found[key].as_str().map(str::to_owned);
        Some((text("status")?, text("reason")?))
    }

    /// The patches of the Node so far.
    #[must_use]
    pub fn patches(&self) -> Vec<Value> {
        self.world.borrow().patches.clone()
    }

    /// Replaces the Node's object, as when it is deleted and kubelet registers it anew: with this uid and this taint, and without
    /// conditions.
    pub fn register(&self, uid: &str, taint: &str) {
        self.change(|node| {
            node["metadata"]["uid"] = json!(uid);
            node["spec"] = json!({ "taints": [{ "key": taint, "effect": "NoSchedule" }] });
            node["status"] = json!({});
        });
    }

    /// Refuses requests with another bearer token. Watches in progress go on.
    pub fn require_token(&self, token: &str) {
        let token = Some(token.to_owned());
        self.world.send_modify(|world| world.token = token);
    }

    /// Whether reading Nodes is refused, as without the right to it. Watches in progress end.
    pub fn forbid_nodes(&self, forbidden: bool) {
        self.world.send_modify(|world| {
            world.nodes_forbidden = forbidden;
            world.era += 1;
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

    /// How many handshakes failed and how many requests had another token.
    #[must_use]
    pub fn refused(&self) -> u32 {
        self.world.borrow().refused
    }

    /// Writes a kubeconfig for this server.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> io::Result<()> {
        self.kubeconfig_of(&json!({}), path)
    }

    /// The same for a user with these credentials.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig_of(&self, user: &Value, path: &Path) -> io::Result<()> {
        let server = format!("http://{}", self.address);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{ "name": "lab", "cluster": { "server": server } }],
            "users": [{ "name": "lab", "user": user }],
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

const CONFIGS: &str = "/apis/crd.k8s.amazonaws.com/v1alpha1";

/// What a watch is about.
#[derive(Clone, Debug)]
enum Subject {
    Node,
    Config(String),
}

fn router(world: &Shared) -> Router {
    Router::new()
        .route("/api/v1/nodes", get(nodes))
        .route("/api/v1/nodes/{name}", get(node).patch(patch::object))
        .route("/api/v1/nodes/{name}/status", patched(patch::status))
        .route("/api/v1/namespaces/default/events", post(event_created))
        .route(&format!("{CONFIGS}/eniconfigs"), get(configs))
        .route(&format!("{CONFIGS}/eniconfigs/{{name}}"), get(config))
        .layer(middleware::from_fn_with_state(
            Arc::clone(world),
            authenticated,
        ))
        .with_state(Arc::clone(world))
}

async fn nodes(
    State(world): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    if world.borrow().nodes_forbidden {
        return status(StatusCode::FORBIDDEN, "Forbidden", "nodes is forbidden");
    }
    let of = |name: &str| query.get(name).cloned().unwrap_or_default();
    if of("watch") == "true" {
        let mut era = 0;
        // In one step: a test that has seen the count may cut the connection immediately.
        world.send_modify(|world| {
            world.watches += 1;
            era = world.era;
        });
        let seen = of("resourceVersion").parse().unwrap_or(0);
        return follow(&world, Subject::Node, era, seen);
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

/// Answers with 401 if the request has not the token.
async fn authenticated(State(world): State<Shared>, request: Request, next: Next) -> Response {
    let wanted = world.borrow().token.clone();
    let shown = request.headers().get(AUTHORIZATION);
    let shown = shown.and_then(|shown| shown.to_str().ok()?.strip_prefix("Bearer "));
    if wanted.is_none() || shown == wanted.as_deref() {
        return next.run(request).await;
    }
    world.send_modify(|world| world.refused += 1);
    status(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
}

fn status(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason,
                         "code": code.as_u16(), "message": message });
    (code, status.to_string()).into_response()
}

fn missing() -> Response {
    status(StatusCode::NOT_FOUND, "NotFound", "it is not there")
}

async fn node(State(world): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    if world.borrow().nodes_forbidden {
        return status(StatusCode::FORBIDDEN, "Forbidden", "nodes is forbidden");
    }
    let node = world.borrow().numbered();
    match node["metadata"]["name"] == json!(name) {
        true => node.to_string().into_response(),
        false => missing(),
    }
}

async fn config(State(world): State<Shared>, UrlPath(name): UrlPath<String>) -> Response {
    let found = world.borrow().configs.get(&name).cloned();
    match found {
        Some((_, Some(config))) => config.to_string().into_response(),
        _ => missing(),
    }
}

async fn configs(
    State(world): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let of = |name: &str| query.get(name).cloned().unwrap_or_default();
    let selector = of("fieldSelector");
    let name = selector.strip_prefix("metadata.name=").unwrap_or_default();
    let now = world.borrow().clone();
    if of("watch") == "true" {
        let seen = of("resourceVersion").parse().unwrap_or(0);
        return follow(&world, Subject::Config(name.to_owned()), now.era, seen);
    }
    let found = now.configs.get(name).and_then(|(_, config)| config.clone());
    let list = json!({
        "apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfigList",
        "metadata": { "resourceVersion": now.version.to_string() },
        "items": found.into_iter().collect::<Vec<_>>(),
    });
    list.to_string().into_response()
}

async fn event_created(State(world): State<Shared>, body: String) -> Response {
    if let Ok(event) = serde_json::from_str(&body) {
        world.send_modify(|world| world.events.push(event));
    }
    (StatusCode::CREATED, body).into_response()
}

impl World {
    /// The event about `subject` for a watch that has seen everything up to this version.
    fn news(&self, subject: &Subject, seen: u64) -> Option<String> {
        match subject {
            Subject::Node => (seen < self.version).then(|| event("MODIFIED", &self.numbered())),
            Subject::Config(name) => {
                let (version, config) = self.configs.get(name).filter(|(at, _)| seen < *at)?;
                let mut object = config.clone().unwrap_or_else(|| {
                    json!({ "apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig",
                            "metadata": { "name": name } })
                });
                object["metadata"]["resourceVersion"] = json!(version.to_string());
                let kind = if config.is_some() {
                    "MODIFIED"
                } else {
                    "DELETED"
                };
                Some(event(kind, &object))
            }
        }
    }

    fn numbered(&self) -> Value {
        let mut node = self.node.clone();
        node["metadata"]["resourceVersion"] = json!(self.version.to_string());
        node
    }
}

/// The watch's stream: one JSON per line, as long as the client stays connected.
fn follow(world: &Shared, subject: Subject, era: u64, seen: u64) -> Response {
    let (lines, body) = mpsc::channel(16);
    let changes = world.subscribe();
    drop(Detached::default().spawn_idle(async move {
        tokio::select! {
            () = lines.closed() => {}
            () = feed(changes, subject, era, seen, &lines) => {}
        }
    }));
    Body::from_stream(ReceiverStream::new(body)).into_response()
}

async fn feed(
    mut changes: watch::Receiver<World>,
    subject: Subject,
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
        } else {
            (now.news(&subject, seen).map(Ok), false)
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
