//! The listen address of a server of the daemon.

use std::{net::SocketAddr, path::PathBuf};

/// The listen address of introspection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    Tcp(SocketAddr),
    Unix(PathBuf),
}
