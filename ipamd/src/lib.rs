//! The node daemon as a library. Its binary is a command line around it, and simulations run its parts in virtual time.
//!
//! Each folder's module file says what it owns and which folders it may use. From the bottom: `runtime`, `config` and
//! `node` know none of the others; `telemetry` and `state` record; `ec2` and `host` act; `pool` and `sandbox`
//! coordinate; `rpc`, `http`, `kube` and `install` are the external interfaces; `tools` is the command line; [`daemon`]
//! connects the parts.

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
