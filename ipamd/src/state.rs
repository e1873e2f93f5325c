//! What survives a restart of the daemon: one file with the sandboxes' records, and its schema; and the file of the AWS VPC
//! CNI for the same purpose.
//!
//! Must not interpret the records. May use `runtime`, `node` and `telemetry`.

pub mod aws_node;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_entry;
pub mod store;
pub mod unknown;
