//! The node's network: the threads that write it, what they repair, and the connections of pods that are gone.
//!
//! [`seam`] is what `pool` and `sandbox` need of a host; simulations implement it without a kernel. Must not know EC2 or
//! the pool. May use `runtime`, `config`, `node`, `telemetry` and `state`.

pub mod conntrack;
pub mod drift_repair;
pub mod hostnet;
mod link_reaper;
pub mod seam;
pub mod vpc_blocks;
