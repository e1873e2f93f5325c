//! Which parts of the desired state a notification makes dirty. Pure: it compares, and sends nothing to the kernel.
//!
//! A notification describes a moment that may have passed, so it proves nothing. One that agrees with the desired state is no
//! reason to look, and most of them agree. For a link, only the last notification counts: the kernel sends one at every step
//! of creating it (before Linux 6.2 without the port of the requester), and only the last one shows the finished link.

use std::collections::BTreeSet;
use std::net::IpAddr;

use netlink_packet_route::RouteNetlinkMessage;

use super::Desired;
use crate::constants::{PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_PODS, RULE_PRIMARY};
use crate::netlink::addr::Address;
use crate::netlink::link::Link;
use crate::netlink::neigh;
use crate::netlink::route::Route;
use crate::netlink::rule::Rule;
use crate::netlink::{Event, Mac};

/// The parts of the state to compare with the kernel again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirtySet {
    /// Rules, settings of the whole node, and the links, addresses and route tables of ENIs.
    pub node: bool,
    /// The host sides of pods.
    pub pods: bool,
    /// Names of pod links whose last notification differed from the desired state.
    pub links: BTreeSet<String>,
    /// Our nftables.
    pub nftables: bool,
    /// A pod's link is gone, and the pod with it.
    pub ended: bool,
    /// MAC addresses of hardware links that are not ours: possibly new ENIs.
    pub unknown_links: BTreeSet<Mac>,
}

impl DirtySet {
    /// Everything that a repair can look at.
    #[must_use]
    pub fn all() -> Self {
        Self {
            node: true,
            pods: true,
            nftables: true,
            ..Self::default()
        }
    }

    /// Whether a repair has anything to look at.
    #[must_use]
    pub fn needs_repair(&self) -> bool {
        self.node || self.of_pods() || self.nftables
    }

    /// Whether the host side of any pod is dirty.
    pub(super) fn of_pods(&self) -> bool {
        self.pods || !self.links.is_empty()
    }
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
            Event::Change(message) => self.mark_change(message, dirty),
        }
    }

    fn mark_change(&self, message: &RouteNetlinkMessage, dirty: &mut DirtySet) {
        use RouteNetlinkMessage as M;
        match message {
            M::DelLink(_) => {
                if let Some(link) = Link::from_message(message) {
                    dirty.links.remove(&link.name);
                    dirty.ended |= self.pods.contains_key(&link.name);
                    dirty.node |= self
                        .enis
                        .values()
                        .any(|(_, index)| *index == Some(link.index));
                }
            }
            M::NewLink(_) => {
                if let Some(link) = Link::from_message(message) {
                    self.mark_link(&link, dirty);
                }
            }
            M::NewRoute(_) | M::DelRoute(_) => {
                if let Some(route) = Route::from_message(message) {
                    let pods = route.table == PODS_TABLE && self.is_pod(route.dst.addr());
                    dirty.pods |= pods;
                    // A pod's route also disappears when IPv6 is switched off for all links, and the kernel sends no other
                    // notification about that.
                    dirty.node |= pods && route.dst.addr().is_ipv6();
                    dirty.node |= self.enis.values().any(|(eni, _)| eni.table == route.table);
                }
            }
            M::NewRule(_) | M::DelRule(_) => {
                if let Some(rule) = Rule::from_message(message) {
                    let ours = [RULE_PODS, RULE_PRIMARY, RULE_ENI, RULE_ENI_ADDRESS];
                    dirty.node |= rule.protocol == PROTOCOL || ours.contains(&rule.priority);
                }
            }
            M::NewAddress(_) | M::DelAddress(_) => {
                if let Some(address) = Address::from_message(message) {
                    let on = |(_, index): &(_, _)| *index == Some(address.index);
                    dirty.node |= self.enis.values().any(on);
                    // The primary's addresses are not ours, but they also disappear when its IPv6 is switched off.
                    let lost = matches!(message, M::DelAddress(_)) && address.address.is_ipv6();
                    dirty.node |= lost && address.index == self.primary;
                }
            }
            M::NewNeighbour(_) | M::DelNeighbour(_) => {
                dirty.pods |= neigh::address_of(message).is_some_and(|ip| self.is_pod(ip));
            }
            _ => {}
        }
    }

    fn mark_link(&self, link: &Link, dirty: &mut DirtySet) {
        if let Some(pod) = self.pods.get(&link.name) {
            // Without the settings: they are applied after the link is made, and the kernel may send a notification about
            // the carrier in between. A change of a setting has a notification of its own.
            if pod.link_drift(link).is_empty() {
                dirty.links.remove(&link.name);
            } else {
                dirty.links.insert(link.name.clone());
            }
            return;
        }
        let Some(mac) = link.mac else { return };
        let ours = self.enis.values().find(|(eni, _)| eni.mac == mac);
        let mtu = match ours {
            Some((eni, _)) => Some(eni.mtu),
            None if mac == self.config.primary_mac => Some(self.config.mtu),
            None => None,
        };
        match mtu {
            Some(mtu) => dirty.node |= !crate::host::is_right(link, mtu),
            // A link that software made has a kind; hardware has none.
            None if link.kind.is_none() && mac.nonzero().is_some() => {
                dirty.unknown_links.insert(mac);
            }
            None => {}
        }
    }

    /// Whether none of our objects has this MAC address.
    pub(super) fn is_unknown(&self, mac: Mac) -> bool {
        mac != self.config.primary_mac && self.enis.values().all(|(eni, _)| eni.mac != mac)
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        self.pods.values().any(|pod| pod.address == address)
    }
}
