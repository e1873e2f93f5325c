//! Network conformance: Kubernetes' own specs of sig-network on a cluster, and cri-tools' networking specs on a node's
//! container runtime. `make conformance` runs them and records what came of each. May use the other modules of this crate;
//! must not know what Hawser consists of.
//!
//! | Module | Owns |
//! |---|---|
//! | [`kubernetes`] | Kubernetes' specs, several at once |
//! | [`critest`] | cri-tools' specs |
//! | [`report`] | the report of either program |
//! | [`record`] | the results of a run, as a file |
//! | [`page`] | the results as `docs/kubernetes-conformance.md`, and which specs may fail |

pub mod critest;
pub mod kubernetes;
pub mod page;
pub mod record;
mod report;
