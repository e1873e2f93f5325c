//! Where a server of the daemon listens.

use std::{net::SocketAddr, path::PathBuf};

/// Where introspection listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}
