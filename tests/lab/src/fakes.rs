//! Servers that a daemon talks to, played on an address that the caller has bound.
//!
//! Owns their answers and the trouble that they make. Must not know nodes or the VPC.

pub mod api_server;
pub mod otlp_collector;
