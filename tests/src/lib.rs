//! A laboratory: a simulated VPC with whole nodes in it, each running the real daemon and executing the real plugin.
//!
//! Used by the integration tests and by the demo. It starts processes and makes namespaces, and ends both; it decides
//! nothing about addresses or networks.

pub mod apiserver;
pub mod binaries;
pub mod browser;
pub mod capture;
pub mod catalogue;
pub mod containerd;
pub mod crash;
pub mod door;
pub mod ether;
pub mod fleet;
pub mod frames;
pub mod golden;
pub mod http;
pub mod inspect;
pub mod lab;
pub mod node;
pub mod otlp;
pub mod pair;
pub mod ping;
pub mod plugin;
pub mod sandbox;
pub mod services;
pub mod simulation;
pub mod soak;
pub mod stream;
pub mod talk;
pub mod tap;
