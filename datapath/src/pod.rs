//! One pod's network: a veth pair, an address, two routes, two neighbours, and a route to it on the host.
//!
//! Owns the hot path (design §4.1): the configuration of a pod, and how it is created, removed, compared and found
//! again. May use `netlink` and `netns`. Must not choose addresses, names or ENIs; these are in a [`PodLink`]. Nothing here
//! enters a namespace: the pod's side is configured through a socket that was opened in it.
//!
//! A link is identified by its index while this process runs, and by its owner, which is its alias, in the next one. Its name
//! identifies nothing: it is the pod's, and passes from one sandbox of the pod to the next.

mod add;
mod bandwidth;
mod del;
mod drift;
mod egress;
mod error;
mod guard;
mod name;
mod observe;
mod pair;
mod pod_link;
mod repair;
mod secondary;
mod wired_pod;

pub use nettypes::Asked;

pub use add::{Wiring, add, add_observed};
pub use del::{PodRef, unlink, unlink_many, unroute};
pub use drift::{Drift, Side};
pub use error::{AddError, Step};
pub use name::{former_host_name, own_name, upstream_host_name};
pub use observe::{HostSide, check, list};
pub use pod_link::PodLink;
pub use repair::adopt::{adopt, let_go};
pub use repair::{PodsRepaired, repair};
pub use secondary::forget_attachment;
pub use wired_pod::WiredPod;

#[cfg(test)]
mod tests;
