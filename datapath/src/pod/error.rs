//! Why an ADD failed, and at which step.

use std::net::{IpAddr, SocketAddr};

use nettypes::HostPort;

use crate::netlink::Error;
use crate::netns::NetnsId;

/// The steps of an ADD, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The pair is created, each end in its namespace.
    Pair,
    /// The pod's end is up and has its address and routes.
    PodSide,
    /// The host has the route to the pod.
    HostSide,
    /// The pod's host ports lead to it.
    HostPorts,
}

/// Why a pod could not be wired. Everything is undone, except if [`AddError::Refused`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The description is invalid for any kernel.
    #[error("invalid {field}: {value:?}")]
    Invalid {
        /// The invalid part of the description.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The pod already has an interface of this name.
    #[error("interface {name} already exists in the pod's network namespace")]
    InterfaceExists {
        /// The pod's interface name.
        name: String,
    },
    /// The name of the host end belongs to a link that is not ours.
    #[error("host link {name} already exists and is not a pod link")]
    HostNameTaken {
        /// The host end's name.
        name: String,
    },
    /// The host already has a route to this address: another sandbox may be using it.
    #[error("address {address} is still routed to another pod")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// A program on the node listens on a host port of the pod: its packets would be taken away from it.
    #[error("host port {port} is used by a program on the node, which has {listener}")]
    PortInUse {
        /// The pod's.
        port: HostPort,
        /// The program's address and port.
        listener: SocketAddr,
    },
    /// The descriptor is not a network namespace (any more).
    #[error("the pod's network namespace no longer exists")]
    NamespaceGone,
    /// The socket was not opened in the namespace that was passed with it.
    #[error("the pod's netlink socket belongs to namespace {socket:?} and not to {netns:?}")]
    NamespaceMismatch {
        /// The socket's namespace.
        socket: NetnsId,
        /// The pod's namespace.
        netns: NetnsId,
    },
    /// The kernel refused a step, or a socket failed.
    #[error("{step:?}{}", if left_behind.is_some() { ", and the host end could not be removed" } else { "" })]
    Refused {
        /// The step.
        step: Step,
        /// The kernel's error.
        #[source]
        source: Error,
        /// Why the host end still exists, if it does.
        left_behind: Option<Error>,
    },
}

impl AddError {
    /// The kernel's refusal of a step, before anything is undone.
    pub(crate) const fn refused(step: Step, source: Error) -> Self {
        Self::Refused {
            step,
            source,
            left_behind: None,
        }
    }
}
