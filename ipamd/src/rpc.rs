//! The gRPC service on the unix socket: who may connect, what arrives, and what is answered.
//!
//! Must not decide anything about addresses. May use `runtime`, `node`, `telemetry`, `state`, `pool` and `sandbox`.

pub mod client;
#[cfg(test)]
mod fuzz_entry;
pub mod listener;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod view;
