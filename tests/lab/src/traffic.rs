//! Packets between namespaces: who answers, through which ENI and with which address, and what was lost.
//!
//! Owns its sockets and captures, and changes no network except what [`kube_proxy`] writes. May use `node` and the
//! [`crate::Lab`]. Must not know the daemon.

pub mod capture;
pub mod ether;
pub mod kube_proxy;
pub mod node_pair;
pub mod ping;
pub mod stream;
pub mod tcp_probe;
pub mod throughput;
pub mod udp_probe;
