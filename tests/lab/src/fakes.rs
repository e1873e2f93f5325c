//! Simulated servers for the daemon, at an address that the caller has bound.
//!
//! Owns their answers and injected faults. Must not know nodes or the VPC.
//!
//! May use no other module.

pub mod api_server;
pub mod otlp_collector;
