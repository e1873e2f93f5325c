//! The contract between the CNI plugin (and the command line) and the node daemon: gRPC messages, the descriptors that
//! precede them, why a request was turned down, and the newtypes both sides parse their input into.
//!
//! Must not know Kubernetes, EC2 or netlink, and does no I/O beyond the preamble of a connection.

pub mod address;
pub mod error_chain;
pub mod handover;
pub mod names;
pub mod refusal;
pub mod tombstone;
pub mod wire;

/// Version 1 of the contract, as generated from `proto/hawser/v1/node.proto`.
pub mod v1 {
    tonic::include_proto!("hawser.v1");
}
