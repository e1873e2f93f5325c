//! The node daemon as a library: its binary is a command line around it, and simulations drive its parts in virtual time.
//!
//! Each folder says in its module file what it owns and which folders it may use. The order of use, from the bottom:
//! `runtime`, `config` and `node` know nothing of the others; `telemetry` and `state` record; `ec2` and `host` act;
//! `pool` and `sandbox` decide when; `rpc`, `http`, `kube` and `install` face the outside; `tools` is the command line;
//! [`daemon`] puts the parts together.

#![forbid(unsafe_code)]

pub mod config;
pub mod daemon;
pub mod ec2;
pub mod host;
pub mod http;
pub mod install;
pub mod kube;
pub mod node;
pub mod pool;
pub mod rpc;
pub mod runtime;
pub mod sandbox;
pub mod state;
pub mod telemetry;
pub mod tools;
