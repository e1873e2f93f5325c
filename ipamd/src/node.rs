//! The identity of this node from instance metadata, and the client of the metadata service.
//!
//! Must not know EC2's API or the pool. Uses no other folder.

#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_entry;
pub mod http_client;
pub mod identity;
pub mod metadata;
