//! HTTP on the node: `/metrics`, introspection under the AWS VPC CNI's paths, and the live page.
//!
//! Only reads. Must not share a thread with the pods' requests. May use `runtime`, `config`, `node`, `telemetry`, `ec2`,
//! `pool`, `sandbox` and `rpc`.

pub mod introspection;
mod limited_listener;
pub mod metrics_server;
pub mod probes;
mod upstream;
