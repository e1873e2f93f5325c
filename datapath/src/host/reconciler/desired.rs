//! The desired state, and which parts of it a notification makes dirty. Pure: it compares, and sends nothing to the kernel.
//!
//! A notification describes a moment that may have passed, so it proves nothing. One that agrees with the desired state is no
//! reason to look, and most of them agree. For a link, only the last notification counts: the kernel sends one at every step
//! of creating it (before Linux 6.2 without the port of the requester), and only the last one shows the finished link.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;

use super::super::config::HostConfig;
use super::super::eni::EniLink;
use super::super::link::is_right;
use super::dirty_set::DirtySet;
use crate::constants::{
    PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_HOST_RESUME, RULE_HOST_SKIP,
    RULE_NODE_LOCAL, RULE_PODS, RULE_PRIMARY,
};
use crate::netlink::addr::Address;
use crate::netlink::link::Link;
use crate::netlink::neigh;
use crate::netlink::qdisc;
use crate::netlink::route::{Kind, LOCAL, Route};
use crate::netlink::rule::Rule;
use crate::netlink::{Event, Mac};
use crate::pod::WiredPod;
use nettypes::EniIndex;

/// The priorities of our rules.
const RULES: [u32; 7] = [
    RULE_PODS,
    RULE_HOST_SKIP,
    RULE_NODE_LOCAL,
    RULE_PRIMARY,
    RULE_ENI,
    RULE_HOST_RESUME,
    RULE_ENI_ADDRESS,
];

/// The desired state.
#[derive(Debug)]
pub(super) struct Desired {
    pub(super) config: HostConfig,
    /// Link index of the primary ENI.
    pub(super) primary: u32,
    /// The source address of pods' routes; see [`Prepared::source`](crate::host::Prepared::source).
    pub(super) source: Option<IpAddr>,
    /// Secondary ENIs by index, each with the index of its link, if it existed at the last check.
    pub(super) enis: BTreeMap<EniIndex, (EniLink, Option<u32>)>,
    /// The MAC addresses of ENIs that were removed, by the index of their links, which EC2 has not detached yet.
    pub(super) removed: BTreeMap<u32, Mac>,
    /// By the index of the host end.
    pub(super) pods: BTreeMap<u32, WiredPod>,
    /// Names of host ends that several pods shall have, or that another link has.
    pub(super) contested: BTreeSet<String>,
    /// The tables to which rules of others send packets of named addresses, as of the last look.
    pub(super) steering: BTreeSet<u32>,
}

impl Desired {
    /// Adds to `dirty` what `event`, a change that somebody else made, may have altered.
    pub(super) fn mark_dirty(&self, event: &Event, dirty: &mut DirtySet) {
        match event {
            // Notifications were lost, so anything may have changed.
            Event::Overrun => {
                *dirty = DirtySet {
                    ended: true,
                    unknown_links: std::mem::take(&mut dirty.unknown_links),
                    ..DirtySet::all()
                };
            }
            // The link does not matter: when forwarding is switched off, the kernel sends one notification per link.
            Event::Setting { .. } => {
                dirty.node = true;
                dirty.pods = true;
            }
            Event::Link(link) => self.mark_link(link, dirty),
            Event::LinkGone(link) => {
                dirty.links.remove(&link.index);
                dirty.ended |= self.pods.contains_key(&link.index);
                dirty.pods |= self.contested.contains(&link.name);
                let of_eni = |(_, index): &(_, _)| *index == Some(link.index);
                dirty.node |= self.enis.values().any(of_eni);
                dirty.node |= self.removed.contains_key(&link.index);
            }
            Event::Change(message) => self.mark_change(message, dirty),
        }
    }

    fn mark_change(&self, message: &RouteNetlinkMessage, dirty: &mut DirtySet) {
        use RouteNetlinkMessage as M;
        match message {
            M::NewQueueDiscipline(root) | M::DelQueueDiscipline(root) => {
                let pod = qdisc::index_of(root).and_then(|index| self.pods.get(&index));
                dirty.pods |= pod.is_some_and(|pod| pod.ingress_bucket().is_some());
            }
            M::NewRoute(_) | M::DelRoute(_) => {
                if let Some(route) = Route::from_message(message) {
                    let pods = route.table == PODS_TABLE && self.is_pod(route.dst.addr());
                    dirty.pods |= pods;
                    // A pod's route also disappears when IPv6 is switched off for all links, and the kernel sends no other
                    // notification about that.
                    dirty.node |= pods && route.dst.addr().is_ipv6();
                    dirty.node |= self.enis.values().any(|(eni, _)| eni.table == route.table);
                    dirty.node |= self.config.primary.table == route.table;
                    // The kernel adds the others with its own addresses, and to each link.
                    let own = !matches!(route.kind, Kind::Multicast | Kind::Anycast);
                    dirty.local |= route.table == LOCAL && own;
                    dirty.local |= self.steering.contains(&route.table);
                }
            }
            M::NewRule(_) | M::DelRule(_) => {
                if let Some(rule) = Rule::from_message(message) {
                    dirty.node |= rule.protocol == PROTOCOL || RULES.contains(&rule.priority);
                    // Its addresses are kept from pods, or no longer.
                    dirty.local |= rule.protocol != PROTOCOL;
                }
            }
            M::NewAddress(_) | M::DelAddress(_) => {
                if let Some(address) = Address::from_message(message) {
                    let on = |(_, index): &(_, _)| *index == Some(address.index);
                    dirty.node |= self.enis.values().any(on);
                    // The source address of pods' routes. When it disappears, the kernel removes the routes as well, or its
                    // mention in them, and sends no notification about them. IPv6 addresses of the primary also disappear
                    // when its IPv6 is switched off.
                    let source = address.address == self.config.primary.address;
                    // A router's advertisement renews the address that is known already.
                    let renewed =
                        matches!(message, M::NewAddress(_)) && self.source == Some(address.address);
                    let six =
                        address.address.is_ipv6() && address.index == self.primary && !renewed;
                    dirty.node |= source || six;
                    dirty.pods |= source || six;
                    dirty.local = true;
                }
            }
            M::NewNeighbour(_) | M::DelNeighbour(_) => {
                dirty.pods |= neigh::address_of(message).is_some_and(|ip| self.is_pod(ip));
            }
            _ => {}
        }
    }

    fn mark_link(&self, link: &Link, dirty: &mut DirtySet) {
        if let Some(pod) = self.pods.get(&link.index) {
            // Without the settings: they are applied after the link is made, and the kernel may send a notification about
            // the carrier in between. A change of a setting has a notification of its own.
            let named = link.name == pod.host_name || self.contested.contains(&pod.host_name);
            if named && pod.link_drift(link).is_empty() {
                dirty.links.remove(&link.index);
            } else {
                dirty.links.insert(link.index);
            }
            return;
        }
        let Some(mac) = link.mac else { return };
        let ours = self.enis.values().find(|(eni, _)| eni.mac == mac);
        let mtu = match ours {
            Some((eni, _)) => Some(eni.mtu),
            None if mac == self.config.primary.mac => Some(self.config.primary.mtu),
            None => None,
        };
        match mtu {
            Some(mtu) => dirty.node |= !is_right(link, mtu),
            // A link that software made has a kind; hardware has none.
            None if link.kind.is_none() && mac.nonzero().is_some() => {
                dirty.unknown_links.insert(mac);
            }
            None => {}
        }
    }

    /// Whether the host end of a pod shall have this name.
    pub(super) fn is_wanted(&self, host_name: &str) -> bool {
        self.pods.values().any(|pod| pod.host_name == host_name)
    }

    /// Whether none of our objects has this MAC address.
    pub(super) fn is_unknown(&self, mac: Mac) -> bool {
        mac != self.config.primary.mac && self.enis.values().all(|(eni, _)| eni.mac != mac)
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        let of = |pod: &WiredPod| pod.addresses().any(|own| own == address);
        self.pods.values().any(of)
    }
}
