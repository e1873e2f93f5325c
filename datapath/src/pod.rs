//! One pod's network: a veth pair, an address, two routes, two neighbours, and a route to it on the host.
//!
//! Owns the hot path (design §4.1): the configuration of a pod, and how it is created, removed, compared and found
//! again. Must not choose addresses, names or ENIs; these are in a [`PodLink`]. Nothing here enters a namespace: the
//! pod's side is configured through a socket that was opened in it.

mod add;
mod del;
mod guard;
mod name;
mod observe;
mod wired_pod;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::constants::{GATEWAY, PODS_TABLE, gateway, group};
use crate::netlink::link::End;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::{Family, Mac};

pub use add::{AddError, LinkIndices, Step, add, add_observed};
pub use del::{PodRef, unlink, unlink_many, unroute, unroute_over};
pub use name::{host_name, upstream_host_name};
pub use observe::{Drift, HostSide, Side, check, list};
pub use wired_pod::{WiredPod, repair};

/// Everything about one pod's network: what ADD creates, CHECK compares, and DEL removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Name of the host end, at most 15 bytes; see [`host_name`].
    pub host_name: String,
    /// Name of the pod's interface (`CNI_IFNAME`), at most 15 bytes.
    pub pod_name: String,
    /// The pod's address, set as /32 or /128.
    pub address: IpAddr,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// Index of the ENI that owns the address; 0 is the primary ENI. It determines the host end's link group.
    pub index: u16,
    /// MAC address of the host end, which is the pod's neighbour entry for the gateway.
    pub host_mac: Mac,
    /// MAC address of the pod's end.
    pub pod_mac: Mac,
}

impl PodLink {
    fn host_end(&self) -> End<'_> {
        End {
            name: &self.host_name,
            mtu: Some(self.mtu),
            mac: Some(self.host_mac),
            group: group(self.index),
            up: false,
        }
    }

    fn pod_end(&self) -> End<'_> {
        End {
            name: &self.pod_name,
            mtu: Some(self.mtu),
            mac: Some(self.pod_mac),
            group: 0,
            up: false,
        }
    }

    fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The pod's default route, and before it the route that makes it usable: the gateway is on-link, which IPv6
    /// assumes for link-local addresses. For IPv6, also the route for the pod's own address, because the kernel adds it
    /// late.
    fn pod_routes(&self, pod_index: u32) -> [Route; 2] {
        let family = self.family();
        let first = match family {
            Family::V4 => Route::link(IpNet::from(IpAddr::V4(GATEWAY)), pod_index, MAIN),
            Family::V6 => Route::own(self.address, pod_index),
        };
        let default = Route::via(family.everything(), gateway(family), pod_index, MAIN);
        [first, default]
    }
}

/// The host's route to a pod.
fn host_route(address: IpAddr, host_index: u32) -> Route {
    Route::link(IpNet::from(address), host_index, PODS_TABLE)
}

#[cfg(test)]
mod tests;
