//! The node daemon as a library: its binary is a command line around it, and simulations drive its parts in virtual time.

#![forbid(unsafe_code)]

pub mod admin;
pub mod books;
pub mod cli;
pub mod client;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod conflist;
pub mod daemon;
pub mod doctor;
pub mod flows;
#[cfg(test)]
mod foreign;
pub mod grpc;
pub mod history;
pub mod hostnet;
pub mod introspect;
pub mod kube;
pub mod listener;
pub mod log;
pub mod memory;
pub mod metrics;
pub mod pool;
pub mod recovery;
pub mod refusals;
pub mod sandboxes;
pub mod snapshot;
pub mod store;
pub mod supervise;
pub mod traces;
pub mod view;
pub mod vpc;
pub mod watch;
pub mod worker;
