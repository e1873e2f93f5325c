//! The test harness: a simulated VPC with whole nodes in it, each with the real daemon and the real plugin.
//!
//! It starts processes and creates namespaces, and ends both. It makes no decisions about addresses or networks.
//!
//! | Part | Owns |
//! |---|---|
//! | [`Lab`] | one simulated VPC, a directory, and nodes on demand |
//! | [`subnets`] | nodes and pods in several subnets and security groups |
//! | [`node`] | an instance's namespace, its daemon, and pods placed by the plugin |
//! | [`sandbox`] | the test process's own namespaces |
//! | [`traffic`] | packets: sent, answered and captured |
//! | [`wire`] | the protocol between plugin and daemon, by hand |
//! | [`fakes`], [`containerd`], [`browser`] | who else talks to a node: played, or the real program |
//! | [`crash`] | a daemon killed, or refused by the kernel, at every effect |
//! | [`soak`] | two nodes in random churn for hours |

#![forbid(unsafe_code)]

pub mod browser;
pub mod containerd;
pub mod crash;
pub mod error;
pub mod fakes;
pub mod http;
pub mod node;
pub mod sandbox;
pub mod soak;
pub mod tcp_forward;
pub mod traffic;
mod vpc;
pub mod wait;
pub mod wire;

pub use vpc::{Lab, aws_node, aws_vpc_cni, subnets};
