//! The part of a host that `pool` and `sandbox` need, and its errors. `HostNet` implements it on a node; simulations
//! implement it without a kernel.

use std::{fmt, net::IpAddr};

use datapath::pod::{HostSide, PodLink, PodRef, Wiring};
use ipnet::IpNet;
use nettypes::Mac;
use planner::{Failure, HostClaim, Mono, command::ConfigureEni};
use proto::handover::Handed;

use crate::{runtime::worker::Gone, state::store::Record};

/// A record and the link that it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Live {
    pub record: Record,
    /// The index of the host end. It is not in the record: it is known only after the record is written.
    pub host_index: u32,
}

/// For the verbs and the recovery: wiring, checking and unwiring pods.
pub trait PodHost: Clone + fmt::Debug + Send + Sync + 'static {
    /// Wires one pod, completely or not at all.
    fn wire(
        &self,
        link: PodLink,
        handed: Handed,
    ) -> impl Future<Output = Result<Wiring, WireError>> + Send;

    /// Makes the pod's address unreachable. The returned future ends when its link is removed too.
    fn unwire(
        &self,
        pod: PodRef,
    ) -> impl Future<
        Output = (
            Result<(), WireError>,
            impl Future<Output = ()> + Send + use<Self> + 'static,
        ),
    > + Send;

    /// Has the link with this index removed, which leads to no pod. The returned future ends when it is gone.
    fn remove_link(&self, host_index: u32)
    -> impl Future<Output = ()> + Send + use<Self> + 'static;

    /// The present name of the link with this index, if it can be read.
    fn name_of(&self, host_index: u32) -> impl Future<Output = Option<String>> + Send;

    /// The differences between the kernel and the pod's desired state, one line each.
    fn check(
        &self,
        link: PodLink,
        host_index: u32,
        handed: Handed,
    ) -> impl Future<Output = Result<Vec<String>, WireError>> + Send;

    /// Removes what a secondary attachment leaves in a pod that continues without it. It is harmless if it stays.
    fn forget_attachment(
        &self,
        _link: PodLink,
        _handed: Handed,
    ) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// An address has lost its pod permanently, and is in cooldown until then. If connections are tracked, they are
    /// deleted.
    fn left(&self, _address: IpAddr, _until: Mono) {}

    /// Every pod link in the kernel.
    fn list(&self) -> impl Future<Output = Result<Vec<HostSide>, WireError>> + Send;
}

/// What the pool must know of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostNews {
    /// The link of the ENI with this address disappeared.
    LinkGone(Mac),
    /// All addresses that the host keeps from pods.
    Claims(Vec<(IpNet, HostClaim)>),
}

/// For the pool: configuring and removing ENIs.
pub trait EniHost: Clone + Send + 'static {
    /// Waits for the ENI's link and configures it for pods.
    fn configure(&self, eni: ConfigureEni) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Removes what [`EniHost::configure`] created, except the link. A missing ENI is a success.
    fn deconfigure(&self, eni: ConfigureEni) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Why a pod could not be wired or checked.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the sandbox already has an interface \"{0}\"")]
    InterfaceExists(String),
    #[error("the kernel still routes {0} to another pod")]
    AddressInUse(IpAddr),
    #[error("the host has a link \"{0}\" that does not belong to a pod")]
    NameTaken(String),
    /// The text names the port and the program's address.
    #[error("{0}")]
    PortInUse(String),
    #[error("the sandbox's network namespace cannot be used")]
    Netns(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the kernel refused")]
    Kernel(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(transparent)]
    Gone(#[from] Gone),
}
