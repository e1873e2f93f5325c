//! EC2 as the daemon sees it: the calls, their answers, and what can go wrong with them.
//!
//! [`api::Ec2`] is the seam: production talks to AWS through [`aws`], simulations implement it in process. An
//! implementation encodes, sends once and decodes. Retries, pacing and meaning belong to [`executor`] and the planner.
//! Only [`aws`] knows the SDK. Must not know the pool. May use `runtime`, `config`, `node` and `telemetry`.

pub mod api;
pub mod aws;
pub mod classify;
pub mod executor;
#[cfg(test)]
mod fuzz_entry;
pub mod instance_type;
pub mod limiter;
