//! Introspection over HTTP, on the node itself: the AWS VPC CNI's paths and JSON, our own, and the live page.
//!
//! Only reads. Runs on its own thread, so that requests here never delay a pod. Container ids are shortened: with a
//! full one and the interface's name, anyone could send a DEL for the pod.

use std::{convert::Infallible, io, net::IpAddr, path::Path, sync::Arc, thread, time::Duration};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{
        StatusCode,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST},
    },
    middleware::{self, Next},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
    routing::get,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    config::{Bind, Config},
    http::upstream,
    node::identity::Identity,
    pool::driver::Pool,
    rpc::{snapshot, view::View},
    runtime::{clock, supervise::Detached},
    sandbox::sandboxes::Sandboxes,
    telemetry::history::{History, SHORT},
};

const PAGE: &str = include_str!("live_page.html");
/// The page contains all its resources and connects to no other server.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; frame-ancestors 'none'";
/// The maximum number of open pages.
const WATCHERS: usize = 16;
/// The minimum time between two updates: many pods at once are not drawn one by one.
const PICTURE: Duration = Duration::from_millis(200);

/// The data of introspection.
#[derive(Clone, Debug)]
pub struct Sources {
    pub pool: Pool,
    pub sandboxes: Sandboxes,
    pub me: Arc<Identity>,
    pub config: Arc<Config>,
    pub history: Arc<History>,
    pub detached: Detached,
}

#[derive(Clone)]
struct Shared {
    sources: Sources,
    watchers: Arc<Semaphore>,
}

/// Listens, and serves from its own thread until the process ends.
///
/// # Errors
/// The operating system's error for the address, the path or the thread.
pub fn start(bind: &Bind, sources: Sources) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let routes = routes(sources);
    let listener = {
        let _entered = runtime.enter();
        Listener::bind(bind)?
    };
    thread::Builder::new()
        .name("introspect".to_owned())
        .spawn(move || {
            if let Err(error) = runtime.block_on(listener.serve(routes)) {
                tracing::error!(%error, "introspection is no longer served");
            }
        })?;
    Ok(())
}

enum Listener {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listener {
    fn bind(bind: &Bind) -> io::Result<Self> {
        match bind {
            Bind::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Tcp(tokio::net::TcpListener::from_std(listener)?))
            }
            Bind::Unix(path) => {
                remove_stale(path)?;
                Ok(Self::Unix(tokio::net::UnixListener::bind(path)?))
            }
        }
    }

    async fn serve(self, routes: Router) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => axum::serve(listener, routes).await,
            Self::Unix(listener) => axum::serve(listener, routes).await,
        }
    }
}

/// Removes a socket of a previous daemon. Any other file at the path is kept.
fn remove_stale(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!("\"{}\" exists and is not a socket", path.display()),
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn routes(sources: Sources) -> Router {
    Router::new()
        .route("/v1/enis", get(enis))
        .route("/v1/eni-configs", get(eni_configs))
        .route("/v1/networkutils-env-settings", get(network_settings))
        .route("/v1/ipamd-env-settings", get(pool_settings))
        .route("/v1/pool", get(pool))
        .route("/v1/decisions", get(decisions))
        .route("/v1/trace", get(trace))
        .route("/v1/events", get(events))
        .fallback(front)
        .layer(middleware::from_fn(local_names_only))
        .with_state(Shared {
            sources,
            watchers: Arc::new(Semaphore::new(WATCHERS)),
        })
}

/// A web page whose host name resolves to this node must not read introspection through a browser (DNS rebinding).
async fn local_names_only(request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).and_then(|h| h.to_str().ok());
    if host.is_none_or(is_local) {
        next.run(request).await
    } else {
        let why = "this name does not belong to the node: use its address or localhost\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    }
}

fn is_local(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<IpAddr>().is_ok()
}

/// The page for browsers; for other clients, the AWS VPC CNI's answer at its root and at unknown paths.
async fn front(request: Request) -> Response {
    let accept = request.headers().get(ACCEPT).and_then(|a| a.to_str().ok());
    let browser = accept.is_some_and(|accept| accept.contains("text/html"));
    if browser && request.uri().path() == "/" {
        return (
            [
                (CONTENT_TYPE, "text/html; charset=utf-8"),
                (CONTENT_SECURITY_POLICY, POLICY),
                (CACHE_CONTROL, "no-store"),
            ],
            PAGE,
        )
            .into_response();
    }
    let paths = [
        "/v1/enis",
        "/v1/eni-configs",
        "/v1/networkutils-env-settings",
        "/v1/ipamd-env-settings",
        "/v1/pool",
        "/v1/decisions",
        "/v1/trace",
        "/v1/events",
    ];
    answer(&json!({ "AvailableCommands": paths }))
}

fn answer(value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn gone() -> Response {
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "the daemon is shutting down\n",
    )
        .into_response()
}

impl Shared {
    /// The node, with shortened sandboxes.
    async fn view(&self) -> Option<View> {
        let me = &self.sources.me;
        let pool = self.sources.pool.snapshot().await.ok()?;
        let wire = snapshot::to_wire(
            &pool,
            &self.sources.sandboxes.extras(),
            &me.instance,
            &me.instance_type,
            &self.sources.config.notices,
        );
        let mut view = View::from(wire);
        for waiting in &mut view.waiting {
            shorten(&mut waiting.sandbox);
        }
        for address in view.enis.iter_mut().flat_map(|eni| &mut eni.addresses) {
            shorten(&mut address.sandbox);
        }
        Some(view)
    }
}

/// `container id/interface` → the beginning of the container's id.
fn shorten(sandbox: &mut String) {
    let id = sandbox.split('/').next().unwrap_or_default();
    *sandbox = id.get(..SHORT).unwrap_or(id).to_owned();
}

async fn enis(State(shared): State<Shared>) -> Response {
    match shared.view().await {
        Some(view) => answer(&upstream::enis(&view, clock::wall())),
        None => gone(),
    }
}

async fn eni_configs() -> Response {
    let why = "custom networking (ENIConfig) is not supported\n";
    (StatusCode::NOT_FOUND, why).into_response()
}

async fn network_settings(State(shared): State<Shared>) -> Response {
    answer(&upstream::network_settings(&shared.sources.config))
}

async fn pool_settings(State(shared): State<Shared>) -> Response {
    answer(&upstream::pool_settings(&shared.sources.config))
}

async fn pool(State(shared): State<Shared>) -> Response {
    match shared.view().await {
        Some(view) => answer(&view),
        None => gone(),
    }
}

async fn decisions(State(shared): State<Shared>) -> Response {
    answer(&told_decisions(&shared.sources.history))
}

fn told_decisions(history: &History) -> Vec<Value> {
    let now = clock::now();
    let age = |at| millis(now.since(at));
    let decisions = history.decisions();
    decisions
        .iter()
        .map(|d| json!({ "ageMs": age(d.at), "what": d.what, "why": d.why }))
        .collect()
}

#[derive(Deserialize)]
struct Which {
    sandbox: Option<String>,
}

async fn trace(State(shared): State<Shared>, Query(which): Query<Which>) -> Response {
    let Some(sandbox) = which.sandbox.filter(|s| s.len() >= 4) else {
        let why = "missing parameter: /v1/trace?sandbox=<the container's id, or at least four characters of it>\n";
        return (StatusCode::BAD_REQUEST, why).into_response();
    };
    let now = clock::now();
    let stages: Vec<_> = shared
        .sources
        .history
        .stages(&sandbox)
        .iter()
        .map(|stage| {
            json!({
                "sandbox": stage.sandbox(),
                "verb": stage.verb,
                "what": stage.what,
                "tookMs": stage.took.as_secs_f64() * 1e3,
                "ageMs": millis(now.since(stage.at)),
            })
        })
        .collect();
    answer(&stages)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The current node, and again after every change, as server-sent events.
async fn events(State(shared): State<Shared>) -> Response {
    let Ok(place) = shared.watchers.clone().try_acquire_owned() else {
        let why = "too many pages are open on this node\n";
        return (StatusCode::SERVICE_UNAVAILABLE, why).into_response();
    };
    let (send, pictures) = mpsc::channel(1);
    let detached = shared.sources.detached.clone();
    drop(detached.spawn_idle(draw(shared, send, place)));
    Sse::new(ReceiverStream::new(pictures))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// Until the page is closed or the pool ends.
async fn draw(
    shared: Shared,
    send: mpsc::Sender<Result<Event, Infallible>>,
    _place: OwnedSemaphorePermit,
) {
    let mut changes = shared.sources.pool.changes();
    while let Some(view) = shared.view().await {
        let slots = planner::limits::lookup(&view.instance_type).map(|kind| kind.slots_per_eni());
        let picture = json!({
            "pool": view,
            "slotsPerEni": slots,
            "decisions": told_decisions(&shared.sources.history),
        });
        if send
            .send(Ok(Event::default().data(picture.to_string())))
            .await
            .is_err()
        {
            return;
        }
        tokio::time::sleep(PICTURE).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            // Otherwise a closed page is noticed only with the next change.
            () = send.closed() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_the_node_itself_are_answered() {
        for host in [
            "localhost",
            "localhost:61679",
            "127.0.0.1:61679",
            "[::1]:61679",
            "10.0.0.4",
        ] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "example.com",
            "example.com:61679",
            "localhost.example.com",
            "",
        ] {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_sandbox_leaves_without_its_interface_and_most_of_its_id() {
        let mut sandbox = "0123456789abcdef0123/eth0".to_owned();
        shorten(&mut sandbox);
        assert_eq!(sandbox, "0123456789ab");
        let mut none = String::new();
        shorten(&mut none);
        assert!(none.is_empty());
    }

    #[test]
    fn a_file_in_the_sockets_place_is_not_removed() {
        let path = std::env::temp_dir().join(format!("hawser-introspect-{}", std::process::id()));
        std::fs::write(&path, "somebody's").unwrap();
        assert!(remove_stale(&path).is_err());
        assert!(path.exists());
        std::fs::remove_file(&path).unwrap();
        assert!(remove_stale(&path).is_ok());
    }
}
