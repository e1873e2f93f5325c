//! A Kubernetes cluster on a simulated VPC: the real control plane, kubelet, containerd, kube-proxy and CoreDNS, with
//! Hawser as the network. Used by `make cluster`, `make conformance`
//! and the cluster test.
//!
//! | Module | Owns |
//! |---|---|
//! | [`cluster`] | the cluster, and the order in which its parts are started |
//! | [`machine`] | the namespaces of one machine, and the services that run in them |
//! | [`control_plane`], [`worker`] | the services of each kind of machine, and their configuration |
//! | [`pki`] | certificates and kubeconfig files |
//! | [`images`] | container images built on this machine |
//! | [`conformance`] | the specs of Kubernetes and of cri-tools, run on a cluster |
//! | [`programs`] | the directory of the programs that `make cluster-programs` builds |
//!
//! It may start processes and create namespaces, and it removes both. It uses Hawser only through its image and its chart.

#![forbid(unsafe_code)]

pub mod cluster;
pub mod command;
pub mod conformance;
pub mod control_plane;
pub mod images;
pub mod machine;
pub mod pki;
pub mod programs;
pub mod worker;
