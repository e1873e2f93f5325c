//! One pod's network: a veth pair, an address, two routes, two neighbours, and a route to it on the host.
//!
//! Owns the hot path (design §4.1): the configuration of a pod, and how it is created, removed, compared and found
//! again. May use `netlink` and `netns`. Must not choose addresses, names or ENIs; these are in a [`PodLink`]. Nothing here enters a namespace: the
//! pod's side is configured through a socket that was opened in it.

mod add;
mod del;
mod drift;
mod guard;
mod name;
mod observe;
mod pod_link;
mod wired_pod;

pub use add::{AddError, LinkIndices, Step, add, add_observed};
pub use del::{PodRef, unlink, unlink_many, unroute, unroute_over};
pub use drift::{Drift, Side};
pub use name::{host_name, upstream_host_name};
pub use observe::{HostSide, check, list};
pub use pod_link::PodLink;
pub use wired_pod::{WiredPod, repair};

#[cfg(test)]
mod tests;
