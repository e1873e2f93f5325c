//! A listener with a limited number of connections. Anyone who reaches the node reaches its metrics, and each
//! connection uses a descriptor that the plugin's connections may need. Connections beyond the limit wait in the
//! kernel's queue.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};

/// See the module.
#[derive(Debug)]
pub struct Few {
    listener: TcpListener,
    seats: Arc<Semaphore>,
}

impl Few {
    #[must_use]
    pub fn new(listener: TcpListener, limit: usize) -> Self {
        Self {
            listener,
            seats: Arc::new(Semaphore::new(limit)),
        }
    }
}

impl axum::serve::Listener for Few {
    type Io = Seated;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Seated, SocketAddr) {
        let seat = self
            .seats
            .clone()
            .acquire_owned()
            .await
            .expect("never closed");
        // Retries after errors of single connections, and while the process has no free descriptors.
        let (stream, peer) = axum::serve::Listener::accept(&mut self.listener).await;
        (
            Seated {
                stream,
                _seat: seat,
            },
            peer,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, and its permit.
#[derive(Debug)]
pub struct Seated {
    stream: TcpStream,
    _seat: OwnedSemaphorePermit,
}

impl AsyncRead for Seated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Seated {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::serve::Listener as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn those_beyond_the_limit_wait_for_one_to_leave() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut few = Few::new(listener, 1);
        let _clients = (
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        );
        let (first, _) = few.accept().await;
        let soon = Duration::from_millis(50);
        assert!(timeout(soon, few.accept()).await.is_err());
        drop(first);
        few.accept().await;
    }
}
