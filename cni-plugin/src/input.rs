//! What the container runtime passes in: `CNI_*` variables and the configuration on stdin.
//!
//! Owns parsing and every rule about input, so that a verb only sees checked values. May use `error` and `version`; must not
//! know the verbs' work, the daemon or the network namespace.

pub mod conf;
pub mod env;
mod json;
pub mod runtime_config;
