//! `hawser`, the CNI plugin: turns one call of a container runtime into one call of the node's daemon.
//!
//! Keeps no state, programs no network, and ends after about a millisecond. Must not know AWS, Kubernetes or any policy. The
//! library is what the executable and the fuzz target share; nothing else uses it.

pub mod arena;
#[cfg(test)]
mod catalogue;
pub mod entry;
mod error;
#[doc(hidden)]
pub mod fuzz_entry;
mod input;
mod netns;
mod result;
mod rpc;
mod run;
mod verbs;
mod version;
