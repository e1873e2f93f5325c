//! A Kubernetes cluster on a simulated VPC: the real control plane, kubelet, containerd, kube-proxy and CoreDNS, with
//! Hawser as the network. Used by `make cluster` and by the cluster test.
//!
//! | Module | Owns |
//! |---|---|
//! | [`cluster`] | the order in which a cluster comes up, and the whole of it |
//! | [`machine`] | the namespaces of one machine, and the services that run in them |
//! | [`control_plane`], [`worker`] | which services those are, and their configuration |
//! | [`pki`] | certificates and kubeconfig files |
//! | [`images`] | container images made on this machine |
//! | [`programs`] | where the programs are that `make cluster-programs` built |
//!
//! It may start processes and make namespaces, and ends both. It knows Hawser only by its image and its chart.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod images;
pub mod machine;
pub mod pki;
pub mod programs;
pub mod worker;
