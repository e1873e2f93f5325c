//! A VPC on a laptop.
#![forbid(unsafe_code)]

pub mod action;
mod api;
pub mod calls;
mod clock;
pub mod ec2;
pub mod error;
pub mod faults;
pub mod ids;
pub mod imds;
pub mod latency;
mod serve;
mod shared;
mod time_text;
pub mod world;

pub use api::Api;
