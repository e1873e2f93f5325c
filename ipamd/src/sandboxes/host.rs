//! What the verbs and the recovery need of the kernel. [`HostNet`] does it on a node; simulations stand in for it.

use std::{fmt, net::IpAddr};

use datapath::pod::{HostSide, PodLink, PodRef};
use planner::Mono;
use proto::handover::Handed;

use crate::hostnet::{HostNet, WireError};

/// See the methods of the same names of [`HostNet`].
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

impl PodHost for HostNet {
    async fn wire(&self, link: PodLink, handed: Handed) -> Result<(), WireError> {
        Self::wire(self, link, handed).await
    }

    async fn unwire(
        &self,
        pod: PodRef,
    ) -> (
        Result<(), WireError>,
        impl Future<Output = ()> + Send + use<> + 'static,
    ) {
        Self::unwire(self, pod).await
    }

    async fn check(&self, link: PodLink, handed: Handed) -> Result<Vec<String>, WireError> {
        Self::check(self, link, handed).await
    }

    fn left(&self, address: IpAddr, until: Mono) {
        self.flows().left(address, until);
    }

    async fn list(&self) -> Result<Vec<HostSide>, WireError> {
        Self::list(self).await
    }
}
