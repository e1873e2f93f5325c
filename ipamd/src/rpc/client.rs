//! The client side of the daemon's socket, for the command line.
//!
//! Connects once and fails immediately; the caller decides whether to retry.

use std::{io, os::fd::AsFd, path::Path, time::Duration};

use hyper_util::rt::TokioIo;
use proto::{
    handover,
    v1::{InspectRequest, Snapshot, node_client::NodeClient},
};
use tokio::net::UnixStream;
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint, Uri},
};

/// A full node's snapshot has some hundred kilobytes; the library's own limit is 4 MiB.
const ANSWER_LIMIT: usize = 16 << 20;
/// A running daemon accepts immediately.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("no daemon answers at \"{path}\"")]
    Connect {
        path: String,
        source: tonic::transport::Error,
    },
    #[error("the daemon refused: {}", .0.message())]
    Refused(#[from] Box<Status>),
    #[error("the daemon sent no snapshot")]
    Nothing,
}

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client(NodeClient<Channel>);

/// The node, and again after every change.
#[derive(Debug)]
pub struct Snapshots(Streaming<Snapshot>);

impl Client {
    /// # Errors
    /// [`ClientError::Connect`] if nothing listens at `socket`.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let path = socket.to_owned();
        let connect = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move {
                let stream = UnixStream::connect(path).await?;
                handover::send(stream.as_fd(), None)?;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        // The name is never resolved: the connector uses the socket.
        let channel = Endpoint::from_static("http://ipamd.invalid")
            .connect_timeout(CONNECT_LIMIT)
            .connect_with_connector(connect)
            .await
            .map_err(|source| ClientError::Connect {
                path: socket.display().to_string(),
                source,
            })?;
        Ok(Self(
            NodeClient::new(channel).max_decoding_message_size(ANSWER_LIMIT),
        ))
    }

    /// The current state of the node.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn inspect(&mut self) -> Result<Snapshot, ClientError> {
        let mut snapshots = self.snapshots(false).await?;
        snapshots.next().await?.ok_or(ClientError::Nothing)
    }

    /// The current state of the node, and again after every change.
    ///
    /// # Errors
    /// The daemon's error.
    pub async fn watch(&mut self) -> Result<Snapshots, ClientError> {
        self.snapshots(true).await
    }

    async fn snapshots(&mut self, watch: bool) -> Result<Snapshots, ClientError> {
        let answer = self.0.inspect(InspectRequest { watch }).await;
        Ok(Snapshots(answer.map_err(Box::new)?.into_inner()))
    }
}

impl Snapshots {
    /// `None` when the daemon has ended.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn next(&mut self) -> Result<Option<Snapshot>, ClientError> {
        Ok(self.0.message().await.map_err(Box::new)?)
    }
}
