//! A simulated VPC: the EC2 Query API, IMDSv2 and a packet fabric, with injected faults.
//!
//! | Part | Owns | Must not |
//! |---|---|---|
//! | [`world`] | EC2's rules and the ledger; pure, told the time | know HTTP, threads, clocks |
//! | [`ec2`], [`imds`], [`dns`] | the wire | know rules |
//! | [`fabric`] | namespaces, veth pairs, routes | know addresses other than as told |
//! | [`Sim`] | all of it running together | – |
//! | [`Api`] | the faces alone, on any listeners | need privileges |
//!
//! A deterministic simulation uses [`world::World`] and [`faults::Faults`] directly, in virtual time. The crate's
//! README lists the intended differences from EC2. Released binaries never link this crate.

#![forbid(unsafe_code)]

pub mod action;
mod api;
pub mod calls;
mod clock;
pub mod dns;
pub mod ec2;
pub mod error;
pub mod fabric;
pub mod faults;
#[cfg(test)]
mod http_test;
pub mod ids;
pub mod imds;
pub mod latency;
pub mod random;
mod serve;
mod shared;
mod sim;
mod time_text;
pub mod world;

pub use action::Action;
pub use api::Api;
pub use calls::{Call, Outcome};
pub use clock::wall_clock;
pub use faults::{Fault, FaultKind};
pub use shared::WorldGuard;
pub use sim::{Instance, Sim, SimConfig, SimError, SubnetConfig};
pub use world::{LaunchInstance, World, WorldConfig};
