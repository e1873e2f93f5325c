//! One connection past its preamble: HTTP/2 over it, within what its seat allows, for one service.
//!
//! Owns reading, writing and ending it. The library's own server is not used because each of its layers (a router, time
//! limits, load shedding, boxes around bodies) is walked through by every pod's start, and nothing here needs them.

use std::{
    convert::Infallible,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::watch,
};
use tonic::body::Body;
use tower::Service;

use super::{
    Brought,
    cork::{Cork, Silence},
    seats::Seat,
};

/// Input that HTTP/2 reads ahead of whoever wants it, per connection: its own default is a mebibyte.
const READ_AHEAD: u32 = 64 << 10;

/// What answers requests: a gRPC service, which is always ready. A clone for each request.
pub trait Serves:
    Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + 'static
{
}

impl<S> Serves for S where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future: Send>
        + Clone
        + Send
        + 'static
{
}

/// The service, for one connection.
struct Served<S> {
    service: S,
    brought: Brought,
}

impl<S: Serves> hyper::service::Service<Request<Incoming>> for Served<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.brought.clone());
        self.service.clone().call(request)
    }
}

/// Serves the connection until either side ends it; after `stop`, until the request under way is answered.
pub async fn serve(
    connection: Connection,
    brought: Brought,
    service: impl Serves,
    mut stop: watch::Receiver<()>,
) {
    let service = Served { service, brought };
    let mut http = http2::Builder::new(TokioExecutor::new());
    // Plugin and command line ask one thing per connection; bounds per connection are bounds per request so.
    http.max_concurrent_streams(1)
        .initial_stream_window_size(READ_AHEAD)
        .initial_connection_window_size(READ_AHEAD)
        .auto_date_header(false);
    let mut served = pin!(http.serve_connection(TokioIo::new(connection), service));
    let ended = tokio::select! {
        ended = &mut served => ended,
        _ = stop.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(
            error = crate::refusals::chain(&error),
            "a connection ended early"
        );
    }
}

/// A connection past its preamble.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    seat: Seat,
    cork: Cork,
}

impl Connection {
    pub fn new(stream: UnixStream, seat: Seat) -> Self {
        Self {
            stream,
            seat,
            cork: Cork::default(),
        }
    }

    /// Sends what is kept back and then `bytes`; answers how many of these.
    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let parts = [IoSlice::new(self.cork.held()), IoSlice::new(bytes)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &parts))?;
            let of_these = self.cork.sent(written);
            if of_these > 0 || written == 0 || self.cork.held().is_empty() && bytes.is_empty() {
                return Poll::Ready(Ok(of_these));
            }
        }
    }
}

impl AsyncRead for Connection {
    /// HTTP/2 reads whenever anything moves, so this is where a connection learns that it has to end.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(ended) = this.seat.poll_ended(cx) {
            return Poll::Ready(Err(ended.into()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf)?;
        if read.is_pending() {
            match this.cork.silent(this.seat.is_in_use()) {
                Silence::Wait => {}
                Silence::LookAgain => cx.waker().wake_by_ref(),
                // Whether or not it goes out at once: whoever is woken for it reads again, and so comes here.
                Silence::Speak => drop(this.poll_send(cx, &[])?),
            }
        }
        this.seat.charge(buf.filled().len() - before)?;
        read.map(Ok)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cork.holds(buf) {
            return Poll::Ready(Ok(buf.len()));
        }
        this.poll_send(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
