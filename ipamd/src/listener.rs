//! The daemon's socket: who may connect, and the preamble by which a connection brings its descriptors.
//!
//! Owns the socket file (0700 directory, 0600 socket from birth) and each connection until HTTP/2 begins. Knows no verb.

use std::{
    io,
    os::{fd::AsFd, unix::fs::DirBuilderExt},
    path::Path,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use nix::sys::stat::{Mode, umask};
use proto::handover::{self, Handed, Preamble};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
};
use tonic::transport::server::Connected;

use crate::supervise::Detached;

/// How long a fresh connection may take to send its one byte.
const PREAMBLE_LIMIT: Duration = Duration::from_secs(5);
/// Connections at one time; each costs two descriptors more than itself. Others wait in the kernel's backlog.
const CONNECTIONS: usize = 1024;

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

/// Accepts for ever; connections whose preamble is good come out of `ready`.
pub async fn accept(
    listener: UnixListener,
    ready: mpsc::Sender<io::Result<Connection>>,
    detached: Detached,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let seat = seats.clone().acquire_owned().await.expect("never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: those in use will come back.
                tracing::error!(%error, "could not accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let ready = ready.clone();
        drop(detached.spawn(async move {
            match tokio::time::timeout(PREAMBLE_LIMIT, greet(stream)).await {
                Ok(Ok((stream, handed))) => {
                    drop(
                        ready
                            .send(Ok(Connection {
                                stream,
                                handed,
                                _seat: seat,
                            }))
                            .await,
                    );
                }
                Ok(Err(error)) => tracing::warn!(%error, "refused a connection"),
                Err(_) => tracing::warn!("refused a connection that sent no preamble"),
            }
        }));
    }
}

async fn greet(stream: UnixStream) -> io::Result<(UnixStream, Brought)> {
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
    Ok((stream, Brought(Arc::new(Mutex::new(handed)))))
}

/// The descriptors that came with a connection. The first request that needs them takes them.
#[derive(Clone, Debug)]
pub struct Brought(Arc<Mutex<Option<Handed>>>);

impl Brought {
    #[must_use]
    pub fn take(&self) -> Option<Handed> {
        self.0.lock().expect("no holder panics").take()
    }
}

/// A connection past its preamble.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    handed: Brought,
    _seat: tokio::sync::OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Brought;

    fn connect_info(&self) -> Brought {
        self.handed.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
