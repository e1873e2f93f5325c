//! The CNI verbs on one node: each is a transaction over address, kernel and record.
//!
//! Must not know EC2 or how a request was received. May use `runtime`, `config`, `telemetry`, `state`, `pool` and
//! `host`.

mod early_del;
mod egress_leases;
mod keyed_lock;
mod port_book;
pub mod recovery;
pub mod refusals;
pub mod sandboxes;
pub mod takeover;
