//! What the daemon installs on the node for the container runtime: the network configuration.
//!
//! May use `config` and `pool`.
//!
//! Must not know what the runtime makes of it.

pub mod conflist;
