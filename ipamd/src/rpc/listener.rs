//! The daemon's socket: who may connect, and the preamble with which a connection passes its descriptors.
//!
//! Owns the socket file (0700 directory, 0600 socket from its creation), each connection from its preamble to its end
//! ([`fast_path`], [`connection`]), and the limits of connections ([`admission`]).
//!
//! May use `runtime` and the service of `rpc`. Must not know what a verb does.

pub mod admission;
mod connection;
mod fast_path;

use std::{
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use nix::sys::{
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};
use proto::{
    handover::{self, Handed, Preamble},
    v1::node_server::Node,
};
use tokio::{
    io::{AsyncWriteExt as _, Interest},
    net::{UnixListener, UnixStream},
    sync::watch,
};
use tonic::Request;

use self::{
    admission::{ConnectionSlots, InFlight, Requests, Slot},
    connection::Connection,
    fast_path::FirstBytes,
};
use crate::runtime::{clock, supervise::Detached};

/// The maximum size of a request: a Gc of a full node has some tens of kilobytes.
const REQUEST_LIMIT: usize = 1 << 20;
/// The minimum time between log lines about refused connections: many of them must not flood the log.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Raises the limit of open files of this process to the system's maximum, and returns it.
#[must_use]
pub fn raise_descriptor_limit() -> u64 {
    const POSIX: u64 = 256;
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return POSIX;
    };
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}

/// Creates the directory and binds the socket. The socket of a dead daemon is removed; the store's lock, which is
/// already held, prevents two live daemons.
///
/// # Errors
/// The error of the file system.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The mode must be right from the creation: with a later chmod, anyone could connect in between.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Accepts connections until `stop` receives a value or its sender is dropped, and serves each connection with a valid
/// preamble with a clone of `node`. Afterwards, connections end after the request in progress.
pub async fn serve(
    listener: UnixListener,
    slots: ConnectionSlots,
    node: impl Node + Clone,
    mut stop: watch::Receiver<()>,
    detached: Detached,
) {
    let refused = Arc::new(RefusalLog::default());
    loop {
        let arrives = async {
            let slot = slots.take().await;
            (slot, listener.accept().await)
        };
        // Cancel-safe: a slot that is not taken stays free, a connection that is not accepted stays queued.
        let (mut slot, accepted) = tokio::select! {
            arrived = arrives => arrived,
            _ = stop.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Probably out of descriptors: those in use will be released.
                refused.note(&error);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        slot.occupy();
        let (node, stop, refused) = (node.clone(), stop.clone(), refused.clone());
        drop(detached.spawn_idle(async move {
            let preamble = tokio::select! {
                preamble = read_preamble(stream) => preamble,
                ended = slot.ended() => Err(ended.into()),
            };
            match preamble {
                Ok((stream, handed)) => serve_connection(stream, handed, slot, node, stop).await,
                Err(error) => refused.note(&error),
            }
        }));
    }
}

/// Serves one connection after its preamble, from its first HTTP/2 byte to its end.
pub(crate) async fn serve_connection(
    mut stream: UnixStream,
    handed: Option<Handed>,
    mut slot: Slot,
    node: impl Node + Clone,
    stop: watch::Receiver<()>,
) {
    let context = ConnectionContext {
        handed: Arc::new(Mutex::new(handed)),
        requests: slot.requests(),
    };
    let read = FirstBytes::read(&stream).and_then(|opening| {
        slot.charge(opening.len())?;
        Ok(opening)
    });
    let opening = match read {
        Ok(opening) => opening,
        Err(error) => return tracing::debug!(%error, "a connection ended early"),
    };
    let Some(call) = opening.call() else {
        let connection = Connection::new(stream, slot, opening.into_bytes());
        return connection::serve(connection, context, node, stop).await;
    };
    let answer = tokio::select! {
        answer = call.answer(&node, context) => answer,
        () = fast_path::closed(&stream) => return,
    };
    // It fits into the buffer of a new socket: a peer that does not read cannot make this wait.
    if let Err(error) = stream.write_all(&answer).await {
        tracing::debug!(%error, "the caller did not read the answer");
    }
}

/// Logs refused connections, several at a time.
#[derive(Debug, Default)]
struct RefusalLog(Mutex<(Option<planner::Mono>, u64)>);

impl RefusalLog {
    fn note(&self, error: &io::Error) {
        let now = clock::now();
        let mut told = self.0.lock().expect("no holder panics");
        let (at, untold) = &mut *told;
        if at.is_some_and(|at| now.since(at) < LOG_PERIOD) {
            *untold += 1;
            return;
        }
        tracing::warn!(%error, others = *untold, "refused a connection");
        (*at, *untold) = (Some(now), 0);
    }
}

async fn read_preamble(stream: UnixStream) -> io::Result<(UnixStream, Option<Handed>)> {
    let peer = stream.peer_cred()?;
    if peer.uid() != 0 {
        return Err(io::Error::other(format!(
            "peer has uid {}, not 0",
            peer.uid()
        )));
    }
    let preamble = stream
        .async_io(Interest::READABLE, || handover::receive(stream.as_fd()))
        .await?;
    let handed = match preamble {
        Preamble::Bare => None,
        Preamble::Handed(handed) => Some(handed),
    };
    Ok((stream, handed))
}

/// What a connection provides for its requests.
#[derive(Clone, Debug)]
pub struct ConnectionContext {
    handed: Arc<Mutex<Option<Handed>>>,
    requests: Requests,
}

impl ConnectionContext {
    /// The descriptors of the connection, for the first request that needs them.
    #[must_use]
    pub fn take(&self) -> Option<Handed> {
        self.handed.lock().expect("no holder panics").take()
    }
}

/// A handler calls this first, because it starts when its request is complete, and keeps the result until the answer.
/// `None` only if the request did not come over one of our connections.
#[must_use]
pub fn under_way<T>(request: &Request<T>) -> Option<InFlight> {
    let context = request.extensions().get::<ConnectionContext>()?;
    Some(context.requests.begin())
}
