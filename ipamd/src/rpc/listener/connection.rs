//! One connection past its preamble: HTTP/2 over it, within what its seat allows.
//!
//! Owns reading, writing and ending it. hyper is called directly: a screenful, where tonic's server wants a stream of
//! connections, and a layer that gives each request what its connection brought.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::{
    error_chain::chain,
    v1::node_server::{Node, NodeServer},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::UnixStream,
    sync::watch,
};
use tonic::body::Body;
use tower::Service;

use super::{Brought, REQUEST_LIMIT};
use crate::rpc::listener::admission::Seat;

/// Input that HTTP/2 reads ahead of whoever wants it, per connection: its own default is a mebibyte.
const READ_AHEAD: u32 = 64 << 10;

/// The node, for one connection.
struct Served<N> {
    node: NodeServer<N>,
    brought: Brought,
}

impl<N: Node> hyper::service::Service<Request<Incoming>> for Served<N> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <NodeServer<N> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.brought.clone());
        self.node.clone().call(request)
    }
}

/// Serves the connection until either side ends it; after `stop`, until the request under way is answered.
pub async fn serve(
    connection: Connection,
    brought: Brought,
    node: impl Node,
    mut stop: watch::Receiver<()>,
) {
    let node = NodeServer::new(node).max_decoding_message_size(REQUEST_LIMIT);
    let service = Served { node, brought };
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
        tracing::debug!(error = chain(&error), "a connection ended early");
    }
}

/// A connection past its preamble.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    seat: Seat,
    /// Read already, and paid for.
    opening: VecDeque<u8>,
}

impl Connection {
    pub fn new(stream: UnixStream, seat: Seat, opening: Vec<u8>) -> Self {
        Self {
            stream,
            seat,
            opening: opening.into(),
        }
    }

    /// Gives what was read before.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let (first, _) = self.opening.as_slices();
        let length = first.len().min(buf.remaining());
        buf.put_slice(&first[..length]);
        self.opening.drain(..length);
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
        if !this.opening.is_empty() {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf)?;
        this.seat.charge(buf.filled().len() - before)?;
        read.map(Ok)
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
