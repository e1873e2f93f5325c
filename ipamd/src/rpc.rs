//! The gRPC service on the unix socket: who may connect, what is received, and what is returned.
//!
//! Must not make decisions about addresses. May use `runtime`, `node`, `telemetry`, `state`, `pool` and `sandbox`.

pub mod client;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_entry;
pub mod listener;
pub mod presence;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod view;
