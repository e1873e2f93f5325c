//! Everything around the daemon's pool and verbs, simulated: EC2 as its client sees it, the kernel, the kubelet, and
//! other users of the subnet.
//!
//! Owns the behaviour and no state: that is in `state`. May use `state`, `oracle`, `scenario` and `faults`. Must not
//! know the daemon's life (`node`, `crash`) or the course of a run.

pub mod actors;
pub mod calls;
pub mod cloud;
pub mod convert;
pub mod host;
pub mod pod_network;
pub mod pods;
