//! Deterministic simulation in virtual time. Nothing here needs privileges, a network or a real clock.
//!
//! | Part | Plays |
//! |---|---|
//! | [`run`] | one node's life from one seed: the daemon's own pool, planner and executor against EC2's world |
//! | [`campaign`] | many seeds, on every core |
//! | [`crash`] | a node's life, ended at each point where a daemon can be killed, and begun again |
//! | [`fleet`] | thousands of nodes that share one account's EC2 budget |
//!
//! A run draws its `scenario`, shares one `state`, runs in the `surroundings` and is checked by the `oracle`.
//! Dependencies: `state` uses `scenario` and `faults`, the `oracle` uses `state`, the `surroundings` use both, `run`
//! and `crash` use all. The fleet is separate.

#![forbid(unsafe_code)]

pub mod campaign;
pub mod crash;
pub mod faults;
pub mod fleet;
mod node;
mod oracle;
mod random;
pub mod run;
mod scenario;
mod state;
mod surroundings;
