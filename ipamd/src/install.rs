//! Installs the plugin and the network configuration on the host for the container runtime, and uninstalls Hawser.
//!
//! May use `config`, `host`, `pool` and `state`.
//!
//! Must not know what the runtime makes of it.

pub mod chain;
pub mod conflist;
pub mod handback;
pub mod plugin;
pub mod uninstall;
