//! The daemon's socket from the other side: what the command line asks of a running `ipamd`.
//!
//! Connects once and gives up at once; whether to try again is the asker's business.

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

/// A full node's snapshot is some hundred kilobytes; the library's own limit is 4 MiB.
const ANSWER_LIMIT: usize = 16 << 20;
/// A daemon that is alive accepts at once.
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

/// The node, again after every change.
#[derive(Debug)]
pub struct Snapshots(Streaming<Snapshot>);

impl Client {
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens at `socket`.
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
        // The name is never looked up: the connector goes to the socket.
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

    /// The node as it stands.
    ///
    /// # Errors
    /// What the daemon answers instead.
    pub async fn inspect(&mut self) -> Result<Snapshot, ClientError> {
        let mut snapshots = self.snapshots(false).await?;
        snapshots.next().await?.ok_or(ClientError::Nothing)
    }

    /// The node as it stands, and then again after every change.
    ///
    /// # Errors
    /// What the daemon answers instead.
    pub async fn watch(&mut self) -> Result<Snapshots, ClientError> {
        self.snapshots(true).await
    }

    async fn snapshots(&mut self, watch: bool) -> Result<Snapshots, ClientError> {
        let answer = self.0.inspect(InspectRequest { watch }).await;
        Ok(Snapshots(answer.map_err(Box::new)?.into_inner()))
    }
}

impl Snapshots {
    /// `None` once the daemon has ended.
    ///
    /// # Errors
    /// If the connection broke.
    pub async fn next(&mut self) -> Result<Option<Snapshot>, ClientError> {
        Ok(self.0.message().await.map_err(Box::new)?)
    }
}
