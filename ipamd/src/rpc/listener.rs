//! The daemon's socket: who may connect, and the preamble by which a connection brings its descriptors.
//!
//! Owns the socket file (0700 directory, 0600 socket from birth), each connection from its preamble to its end ([`plain`],
//! [`connection`]), and what a connection may take ([`admission`]).

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

/// The largest request: a Gc of a full node is some tens of kilobytes.
const REQUEST_LIMIT: usize = 1 << 20;
/// Refused connections are told of so often at most: a flood of them must not become one of log lines.
const COMPLAINT: Duration = Duration::from_secs(10);

/// Raises the number of files that this process may open to what the system allows it, and says how many that are.
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

/// Creates the directory and binds the socket. A socket that a dead daemon left is removed: the store's lock, taken
/// before, is what keeps two living ones apart.
///
/// # Errors
/// What the file system says.
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
    // The mode must be right from birth: a chmod afterwards would leave a moment in which anybody may connect.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener
}

/// Accepts until `stop` is told anything or can be told nothing any more, and has each connection whose preamble is good
/// served by a clone of `node`. Connections end by themselves after that, with the request that is under way.
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
        // Cancel-safe: a seat that is not taken stays free, a connection that is not accepted stays queued.
        let (mut seat, accepted) = tokio::select! {
            arrived = arrives => arrived,
            _ = stop.changed() => return,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those in use will come back.
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

/// Serves one connection whose preamble has been read, from its first word of HTTP/2 to its end.
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
    // It fits into a fresh socket's buffer: nobody who does not read can make this wait.
    if let Err(error) = stream.write_all(&answer).await {
        tracing::debug!(%error, "nobody took the answer");
    }
}

/// Tells of refused connections, some at a time.
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

/// What a connection gives its requests.
#[derive(Clone, Debug)]
pub struct Brought {
    handed: Arc<Mutex<Option<Handed>>>,
    requests: Requests,
}

impl Brought {
    /// The descriptors that came with the connection, for the first request that needs them.
    #[must_use]
    pub fn take(&self) -> Option<Handed> {
        self.handed.lock().expect("no holder panics").take()
    }
}

/// To be called by a handler first of all, for it is started once its request is complete; to be kept until the
/// answer. `None` only where the request came over no connection of ours.
#[must_use]
pub fn under_way<T>(request: &Request<T>) -> Option<UnderWay> {
    let brought = request.extensions().get::<Brought>()?;
    Some(brought.requests.begin())
}
