//! The description of one pod's network, and the objects that follow from it.

use std::net::IpAddr;

use ipnet::IpNet;

use super::bandwidth::bucket;
use super::name::{own_name, prefix_of};
use crate::constants::{ATTACHMENT_TABLES, GATEWAY, PODS_TABLE, RULE_ATTACHMENT, gateway};
use crate::netlink::link::{End, Link};
use crate::netlink::qdisc::TokenBucket;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::rule::Rule;
use crate::netlink::{Family, Mac};
use crate::uplink::Uplink;
use nettypes::Asked;

/// Everything about one pod's network: what ADD creates, CHECK compares, and DEL removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLink {
    /// The name that the host end shall have, at most 15 bytes; see [`upstream_host_name`](super::upstream_host_name). It
    /// may belong to several sandboxes: the youngest has it.
    pub host_name: String,
    /// Whose link it is, in at most 255 bytes, which the kernel keeps as the link's alias. Different for every sandbox.
    pub owner: String,
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
    /// Another interface has the pod's default route, and this one serves only packets from its own address. ADD finds out
    /// by itself.
    pub secondary: bool,
    /// What the pod asks of its network besides its address.
    pub asked: Asked,
    /// The address by which the pod reaches destinations of the other family, if it may. ADD finds out whether the pod has a
    /// place for it. A secondary attachment has none.
    pub egress: Option<IpAddr>,
}

impl PodLink {
    pub(super) fn host_end<'a>(&self, name: &'a str) -> End<'a> {
        End {
            name,
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

    /// The name of the host end while another link keeps its right one.
    pub(super) fn own_name(&self) -> String {
        own_name(prefix_of(&self.host_name), &self.owner)
    }

    /// What holds the packets from the pod to the rate that it asks for.
    pub(super) fn egress_bucket(&self) -> Option<TokenBucket> {
        let limit = self.asked.bandwidth.egress?;
        Some(bucket(limit, self.mtu))
    }

    /// Whether `link` is this sandbox's: of an earlier attempt, which may have ended before the owner was written.
    pub(super) fn is_of(&self, link: &Link) -> bool {
        match &link.alias {
            Some(owner) => *owner == self.owner,
            None => link.mac == Some(self.host_mac),
        }
    }

    /// The pod's default route, and before it the route that makes it usable: the gateway is on-link, which IPv6
    /// assumes for link-local addresses. For IPv6, also the route for the pod's own address, because the kernel adds it
    /// late.
    pub(super) fn pod_routes(&self, pod_index: u32) -> [Route; 2] {
        let default = Route::via(
            self.family().everything(),
            gateway(self.family()),
            pod_index,
            MAIN,
        );
        [self.first_route(pod_index, MAIN), default]
    }

    /// The routes of a secondary attachment: a table of its own, for packets from its address, and the gateway in the main
    /// table, where plugins that move routes (`sbr`) expect it. The metric keeps it apart from the first attachment's.
    pub(super) fn secondary_routes(&self, pod_index: u32) -> Vec<Route> {
        let (family, table) = (self.family(), attachment_table(pod_index));
        let first = self.first_route(pod_index, MAIN);
        let default = Route::via(family.everything(), gateway(family), pod_index, table);
        match family {
            Family::V4 => {
                let found = Route {
                    metric: Some(pod_index),
                    ..first
                };
                vec![found, self.first_route(pod_index, table), default]
            }
            Family::V6 => vec![first, default],
        }
    }

    /// Packets from a secondary attachment's address → its table.
    pub(super) fn secondary_rule(&self, pod_index: u32) -> Rule {
        Rule::from(RULE_ATTACHMENT, self.address, attachment_table(pod_index))
    }

    fn first_route(&self, pod_index: u32, table: u32) -> Route {
        match self.family() {
            Family::V4 => Route::link(IpNet::from(IpAddr::V4(GATEWAY)), pod_index, table),
            Family::V6 => Route::own(self.address, pod_index),
        }
    }
}

/// The pod's table for packets from the address of the attachment with this index.
pub(super) const fn attachment_table(pod_index: u32) -> u32 {
    ATTACHMENT_TABLES.wrapping_add(pod_index)
}

/// The host's route to a pod. `source` is the source address of the node's own packets to the pod.
pub(super) fn host_route(address: IpAddr, host_index: u32, source: Option<IpAddr>) -> Route {
    Route {
        source: source.filter(|source| Family::of(*source) == Family::of(address)),
        ..Route::link(IpNet::from(address), host_index, PODS_TABLE)
    }
}
