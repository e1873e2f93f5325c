//! The description of one pod's network, and the objects that follow from it.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::constants::{GATEWAY, PODS_TABLE, gateway};
use crate::netlink::link::End;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::{Family, Mac};
use crate::uplink::Uplink;

/// Everything about one pod's network: what ADD creates, CHECK compares, and DEL removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// Name of the host end, at most 15 bytes; see [`host_name`](super::host_name).
    pub host_name: String,
    /// Name of the pod's interface (`CNI_IFNAME`), at most 15 bytes.
    pub pod_name: String,
    /// The pod's address, set as /32 or /128.
    pub address: IpAddr,
    /// Of both ends, in bytes.
    pub mtu: u32,
    /// Where its packets leave the node. It determines the host end's link group.
    pub uplink: Uplink,
    /// MAC address of the host end, which is the pod's neighbour entry for the gateway.
    pub host_mac: Mac,
    /// MAC address of the pod's end.
    pub pod_mac: Mac,
}

impl PodLink {
    pub(super) fn host_end(&self) -> End<'_> {
        End {
            name: &self.host_name,
            mtu: Some(self.mtu),
            mac: Some(self.host_mac),
            group: self.uplink.group(),
            up: false,
        }
    }

    pub(super) fn pod_end(&self) -> End<'_> {
        End {
            name: &self.pod_name,
            mtu: Some(self.mtu),
            mac: Some(self.pod_mac),
            group: 0,
            up: false,
        }
    }

    pub(super) fn family(&self) -> Family {
        Family::of(self.address)
    }

    /// The pod's default route, and before it the route that makes it usable: the gateway is on-link, which IPv6
    /// assumes for link-local addresses. For IPv6, also the route for the pod's own address, because the kernel adds it
    /// late.
    pub(super) fn pod_routes(&self, pod_index: u32) -> [Route; 2] {
        let family = self.family();
        let first = match family {
            Family::V4 => Route::link(IpNet::from(IpAddr::V4(GATEWAY)), pod_index, MAIN),
            Family::V6 => Route::own(self.address, pod_index),
        };
        let default = Route::via(family.everything(), gateway(family), pod_index, MAIN);
        [first, default]
    }
}

/// The host's route to a pod. `source` is the source address of the node's own packets to the pod.
pub(super) fn host_route(address: IpAddr, host_index: u32, source: Option<IpAddr>) -> Route {
    Route {
        source: source.filter(|source| Family::of(*source) == Family::of(address)),
        ..Route::link(IpNet::from(address), host_index, PODS_TABLE)
    }
}
