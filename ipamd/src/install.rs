//! What the daemon installs on the node for the container runtime: the network configuration.
//!
//! May use `config` and `pool`.

pub mod conflist;
