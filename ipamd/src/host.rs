//! The node's network: the threads that change it, the repair of drift, and the connections of deleted pods.
//!
//! [`seam`] is the part of a host that `pool` and `sandbox` need; simulations implement it without a kernel. Must not
//! know EC2 or the pool. May use `runtime`, `config`, `node`, `telemetry` and `state`.

pub mod conntrack;
pub mod drift_repair;
mod egress_cni;
pub mod forwarding;
pub mod hostnet;
mod link_reaper;
pub mod marks_in_transit;
pub mod names;
pub mod other_family;
pub mod predecessor;
pub mod seam;
pub mod vpc_blocks;
