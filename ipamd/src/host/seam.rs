//! What `pool` and `sandbox` need of a host, and how it can fail them. `HostNet` does it on a node; simulations stand in
//! for it.

use std::{fmt, net::IpAddr};

use datapath::pod::{HostSide, PodLink, PodRef};
use planner::{Failure, Mono, command::ConfigureEni};
use proto::handover::Handed;

use crate::runtime::worker::Gone;

/// What the verbs and the recovery need: pods wired, checked and unwired.
pub trait PodHost: Clone + fmt::Debug + Send + Sync + 'static {
    /// Wires one pod, completely or not at all.
    fn wire(
        &self,
        link: PodLink,
        handed: Handed,
    ) -> impl Future<Output = Result<(), WireError>> + Send;

    /// Makes the pod's address unreachable; what this gives besides ends once its link is gone too.
    fn unwire(
        &self,
        pod: PodRef,
    ) -> impl Future<
        Output = (
            Result<(), WireError>,
            impl Future<Output = ()> + Send + use<Self> + 'static,
        ),
    > + Send;

    /// What differs between the kernel and the pod's desired state, one line each.
    fn check(
        &self,
        link: PodLink,
        handed: Handed,
    ) -> impl Future<Output = Result<Vec<String>, WireError>> + Send;

    /// An address has lost its pod for good, and rests until then. Where connections are tracked, they are forgotten.
    fn left(&self, _address: IpAddr, _until: Mono) {}

    /// Every pod link that stands in the kernel.
    fn list(&self) -> impl Future<Output = Result<Vec<HostSide>, WireError>> + Send;
}

/// What the pool needs of the host's network: ENIs set up and taken down.
pub trait EniHost: Clone + Send + 'static {
    /// Waits for the ENI's link and makes it ready to carry pods.
    fn configure(&self, eni: ConfigureEni) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Takes away what [`EniHost::configure`] made, the link excepted. An ENI that is gone is success.
    fn deconfigure(&self, eni: ConfigureEni) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a pod could not be wired, or its wiring not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the sandbox already has an interface \"{0}\"")]
    InterfaceExists(String),
    #[error("the kernel still routes {0} to another pod")]
    AddressInUse(IpAddr),
    #[error("the host has a link \"{0}\" that does not belong to a pod")]
    NameTaken(String),
    #[error("the sandbox's network namespace cannot be used")]
    Netns(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the kernel refused")]
    Kernel(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Gone(#[from] Gone),
}
