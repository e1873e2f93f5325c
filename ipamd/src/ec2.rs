//! EC2 for the daemon: the calls, their answers, and their errors.
//!
//! [`api::Ec2`] is the interface: production uses AWS through [`aws`], simulations implement it in process. An
//! implementation encodes a call, sends it once and decodes the answer. Retries, rate and interpretation belong to
//! [`executor`] and the planner. Only [`aws`] knows the SDK. Must not know the pool. May use `runtime`, `config`,
//! `node` and `telemetry`.

pub mod api;
pub mod aws;
pub mod classify;
pub mod codes;
pub mod executor;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzz_entry;
pub mod instance_type;
pub mod limiter;
pub mod own_thread;
