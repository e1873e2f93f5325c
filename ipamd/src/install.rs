//! What the daemon puts on the host for the container runtime: the plugin and the network configuration; and how all of
//! it is removed.
//!
//! May use `config`, `pool` and `state`.
//!
//! Must not know what the runtime makes of it.

pub mod conflist;
pub mod plugin;
pub mod uninstall;
