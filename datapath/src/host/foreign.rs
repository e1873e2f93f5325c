//! The rules of other programs: which of them decide the way of pods' packets, and which ones a predecessor left behind.
//!
//! Pure: rules, routes and links in, answers out. The reconciler reads the kernel and removes; the pool keeps the addresses
//! from pods. May use `netlink`, `error` and the constants. Must not know our desired state or who calls.

mod leftovers;
mod pods;
mod steering;

pub use leftovers::{Predecessor, Scene};
pub use pods::ForeignPod;
pub use steering::{Steered, steered, tables};

#[cfg(test)]
mod tests;
