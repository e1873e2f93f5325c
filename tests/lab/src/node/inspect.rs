//! Queries a daemon's state over its socket, like the command line.

use std::{io, path::Path};

use ipamd::rpc::client::{Client, ClientError};
use proto::v1::Snapshot;

/// The daemon's snapshot.
///
/// # Errors
/// If the daemon cannot be reached or refuses.
pub fn inspect(socket: &Path) -> io::Result<Snapshot> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let asked: Result<_, ClientError> =
        runtime.block_on(async { Client::connect(socket).await?.inspect().await });
    asked.map_err(io::Error::other)
}
