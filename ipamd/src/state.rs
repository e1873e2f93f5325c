//! What survives a restart of the daemon: one file with the sandboxes' records, and its schema.
//!
//! Must not interpret the records. May use `runtime`, `node` and `telemetry`.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_entry;
pub mod store;
pub mod unknown;
