//! Asks a daemon what it holds, over its socket, as the command line does.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use hyper_util::rt::TokioIo;
use proto::{
    handover,
    v1::{InspectRequest, Snapshot, node_client::NodeClient},
};
use tokio::net::UnixStream;
use tonic::transport::{Endpoint, Uri};

/// The daemon's snapshot.
///
/// # Errors
/// If the daemon cannot be reached or refuses.
pub fn inspect(socket: &Path) -> io::Result<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime
        .block_on(ask(socket.to_owned()))
        .map_err(io::Error::other)
}

async fn ask(socket: PathBuf) -> Result<Snapshot, Box<dyn std::error::Error + Send + Sync>> {
    let connect = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move {
            let stream = UnixStream::connect(socket).await?;
            handover::send(stream.as_fd(), None)?;
            Ok::<_, io::Error>(TokioIo::new(stream))
        }
    });
    // The name is never looked up: the connector goes to the socket.
    let channel = Endpoint::from_static("http://ipamd.invalid")
        .connect_with_connector(connect)
        .await?;
    let mut answers = NodeClient::new(channel)
        .inspect(InspectRequest { watch: false })
        .await?
        .into_inner();
    answers
        .message()
        .await?
        .ok_or_else(|| "the daemon sent no snapshot".into())
}
