//! The contract between the CNI plugin (and the command line) and the node daemon: gRPC messages, the descriptors that
//! precede them, refusals, and the newtypes for parsed input of both sides.
//!
//! Must not know Kubernetes, EC2 or netlink, and does no I/O except for the preamble of a connection.

pub mod address;
pub mod asked;
pub mod error_chain;
pub mod handover;
pub mod names;
pub mod presence;
pub mod refusal;
pub mod tombstone;
pub mod wire;

/// Version 1 of the contract, generated from `proto/hawser/v1/node.proto`.
pub mod v1 {
    tonic::include_proto!("hawser.v1");
}
