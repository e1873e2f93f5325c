//! One connection after its preamble: HTTP/2, within the limits of its slot.
//!
//! Owns reading, writing and closing it. hyper is used directly, which needs little code; tonic's server would need a
//! stream of connections and a layer that passes the connection's data to each request.

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

use super::{ConnectionContext, REQUEST_LIMIT};
use crate::rpc::listener::admission::Slot;

/// The HTTP/2 window per connection: the default is one mebibyte.
const READ_AHEAD: u32 = 64 << 10;

/// The node, for one connection.
struct Served<N> {
    node: NodeServer<N>,
    context: ConnectionContext,
}

impl<N: Node> hyper::service::Service<Request<Incoming>> for Served<N> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = <NodeServer<N> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.context.clone());
        self.node.clone().call(request)
    }
}

/// Serves the connection until either side closes it; after `stop`, until the request in progress is answered.
pub async fn serve(
    connection: Connection,
    context: ConnectionContext,
    node: impl Node,
    mut stop: watch::Receiver<()>,
) {
    let node = NodeServer::new(node).max_decoding_message_size(REQUEST_LIMIT);
    let service = Served { node, context };
    let mut http = http2::Builder::new(TokioExecutor::new());
    // Plugin and command line send one request per connection, so limits per connection are limits per request.
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

/// A connection after its preamble.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    slot: Slot,
    /// Already read, and charged.
    opening: VecDeque<u8>,
}

impl Connection {
    pub fn new(stream: UnixStream, slot: Slot, opening: Vec<u8>) -> Self {
        Self {
            stream,
            slot,
            opening: opening.into(),
        }
    }

    /// Returns what was read before.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let (first, _) = self.opening.as_slices();
        let length = first.len().min(buf.remaining());
        buf.put_slice(&first[..length]);
        self.opening.drain(..length);
    }
}

impl AsyncRead for Connection {
    /// HTTP/2 reads whenever anything happens, so a connection learns here that it must close.
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if let Poll::Ready(ended) = this.slot.poll_ended(cx) {
            return Poll::Ready(Err(ended.into()));
        }
        if !this.opening.is_empty() {
            this.give(buf);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buf)?;
        this.slot.charge(buf.filled().len() - before)?;
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
