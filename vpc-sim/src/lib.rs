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
//! A deterministic simulation uses [`world::World`] and [`Faults`] directly, in virtual time. The crate's
//! README lists the intended differences from EC2. Released binaries never link this crate.

#![forbid(unsafe_code)]

pub mod action;
mod api;
pub mod dns;
pub mod ec2;
pub mod error;
pub mod fabric;
mod http;
pub mod ids;
pub mod imds;
pub mod latency;
pub mod random;
mod sim;
mod state;
mod time;
pub mod world;

pub use action::Action;
pub use api::Api;
pub use sim::{Instance, Sim, SimConfig, SimError, SubnetConfig};
pub use state::{
    WorldGuard,
    calls::{Call, Outcome},
    faults::{Fault, FaultKind, Faults},
};
pub use time::clock::wall_clock;
pub use world::{LaunchInstance, World, WorldConfig};
