//! The daemon's socket: who may connect, and the preamble with which a connection passes its descriptors.
//!
//! Owns the socket file (0700 directory, 0600 socket from its creation), each connection from its preamble to its end
//! ([`fast_path`], [`connection`]), and the limits of connections ([`admission`]).

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
    admission::{Requests, Seat, Seats, UnderWay},
    connection::Connection,
    fast_path::Opening,
};
use crate::runtime::{clock, supervise::Detached};

/// The maximum size of a request: a Gc of a full node has some tens of kilobytes.
const REQUEST_LIMIT: usize = 1 << 20;
/// The minimum time between log lines about refused connections: many of them must not flood the log.
const COMPLAINT: Duration = Duration::from_secs(10);

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
    seats: Seats,
    node: impl Node + Clone,
    mut stop: watch::Receiver<()>,
    detached: Detached,
) {
    let refused = Arc::new(Refused::default());
    loop {
        let arrives = async {
            let seat = seats.take().await;
            (seat, listener.accept().await)
        };
        // Cancel-safe: a slot that is not taken stays free, a connection that is not accepted stays queued.
        let (mut seat, accepted) = tokio::select! {
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
        seat.occupy();
        let (node, stop, refused) = (node.clone(), stop.clone(), refused.clone());
        drop(detached.spawn_idle(async move {
            let greeted = tokio::select! {
                greeted = greet(stream) => greeted,
                ended = seat.ended() => Err(ended.into()),
            };
            match greeted {
                Ok((stream, handed)) => converse(stream, handed, seat, node, stop).await,
                Err(error) => refused.note(&error),
            }
        }));
    }
}

/// Serves one connection after its preamble, from its first HTTP/2 byte to its end.
pub(crate) async fn converse(
    mut stream: UnixStream,
    handed: Option<Handed>,
    mut seat: Seat,
    node: impl Node + Clone,
    stop: watch::Receiver<()>,
) {
    let brought = Brought {
        handed: Arc::new(Mutex::new(handed)),
        requests: seat.requests(),
    };
    let read = Opening::read(&stream).and_then(|opening| {
        seat.charge(opening.len())?;
        Ok(opening)
    });
    let opening = match read {
        Ok(opening) => opening,
        Err(error) => return tracing::debug!(%error, "a connection ended early"),
    };
    let Some(call) = opening.call() else {
        let connection = Connection::new(stream, seat, opening.into_bytes());
        return connection::serve(connection, brought, node, stop).await;
    };
    let answer = tokio::select! {
        answer = call.answer(&node, brought) => answer,
        () = fast_path::gone(&stream) => return,
    };
    // It fits into the buffer of a new socket: a peer that does not read cannot make this wait.
    if let Err(error) = stream.write_all(&answer).await {
        tracing::debug!(%error, "nobody took the answer");
    }
}

/// Logs refused connections, several at a time.
#[derive(Debug, Default)]
struct Refused(Mutex<(Option<planner::Mono>, u64)>);

impl Refused {
    fn note(&self, error: &io::Error) {
        let now = clock::now();
        let mut told = self.0.lock().expect("no holder panics");
        let (at, untold) = &mut *told;
        if at.is_some_and(|at| now.since(at) < COMPLAINT) {
            *untold += 1;
            return;
        }
        tracing::warn!(%error, others = *untold, "refused a connection");
        (*at, *untold) = (Some(now), 0);
    }
}

async fn greet(stream: UnixStream) -> io::Result<(UnixStream, Option<Handed>)> {
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
pub struct Brought {
    handed: Arc<Mutex<Option<Handed>>>,
    requests: Requests,
}

impl Brought {
    /// The descriptors of the connection, for the first request that needs them.
    #[must_use]
    pub fn take(&self) -> Option<Handed> {
        self.handed.lock().expect("no holder panics").take()
    }
}

/// A handler calls this first, because it starts when its request is complete, and keeps the result until the answer.
/// `None` only if the request did not come over one of our connections.
#[must_use]
pub fn under_way<T>(request: &Request<T>) -> Option<UnderWay> {
    let brought = request.extensions().get::<Brought>()?;
    Some(brought.requests.begin())
}
