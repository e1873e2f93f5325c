//! The shared state of all actors of a run, behind one lock.
//!
//! Owns EC2's world, the node's ledger, the trace and the first violation. May use `scenario`, `faults` and `random`.
//! Must not know its users: the surroundings, the oracle and the daemon.

pub mod budget;
pub mod claims;
pub mod disturbances;
pub mod ledger;
pub mod lists;
pub mod operator;
pub mod places;
pub mod pod_links;
pub mod points;
pub mod shared;
pub mod trace;

pub use shared::{Shared, State, Violation};
