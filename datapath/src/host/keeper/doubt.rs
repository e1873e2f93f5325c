//! What a notification means for what shall be. Pure: it compares, and asks the kernel nothing.
//!
//! A notification tells of a moment that may be past, so it proves nothing; but one that agrees with what shall be is no
//! reason to look, and most of them do. Of a link the last one counts: it is told at every step of its making, before
//! Linux 6.2 without saying by whom, and is wrong in all of them but the last.

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

/// What to look at again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doubt {
    /// Rules, settings of the whole node, and the links, addresses and tables of ENIs.
    pub node: bool,
    /// The host sides of pods.
    pub pods: bool,
    /// Pods' links, by name, that were not as they shall be when they were last told of.
    pub links: BTreeSet<String>,
    /// Our nftables.
    pub nftables: bool,
    /// A pod's link went, and with it the pod.
    pub ended: bool,
    /// Hardware appeared that we know nothing of, by MAC address: an ENI, maybe.
    pub strangers: BTreeSet<Mac>,
}

impl Doubt {
    /// Everything that a repair looks at.
    #[must_use]
    pub fn all() -> Self {
        Self {
            node: true,
            pods: true,
            nftables: true,
            ..Self::default()
        }
    }

    /// Whether there is anything to repair.
    #[must_use]
    pub fn calls_for_repair(&self) -> bool {
        self.node || self.of_pods() || self.nftables
    }

    /// Whether the host side of any pod is in doubt.
    pub(super) fn of_pods(&self) -> bool {
        self.pods || !self.links.is_empty()
    }
}

impl Desired {
    /// Adds to `doubt` what `event`, somebody else's doing, puts in doubt.
    pub(super) fn doubt(&self, event: &Event, doubt: &mut Doubt) {
        match event {
            // Anything may have been lost.
            Event::Overrun => {
                *doubt = Doubt {
                    ended: true,
                    strangers: std::mem::take(&mut doubt.strangers),
                    ..Doubt::all()
                };
            }
            // Which link it was matters little: forwarding that is switched off is told once for every link.
            Event::Setting { .. } => {
                doubt.node = true;
                doubt.pods = true;
            }
            Event::Change(message) => self.doubt_change(message, doubt),
        }
    }

    fn doubt_change(&self, message: &RouteNetlinkMessage, doubt: &mut Doubt) {
        use RouteNetlinkMessage as M;
        match message {
            M::DelLink(_) => {
                if let Some(link) = Link::from_message(message) {
                    doubt.links.remove(&link.name);
                    doubt.ended |= self.pods.contains_key(&link.name);
                    doubt.node |= self
                        .enis
                        .values()
                        .any(|(_, index)| *index == Some(link.index));
                }
            }
            M::NewLink(_) => {
                if let Some(link) = Link::from_message(message) {
                    self.doubt_link(&link, doubt);
                }
            }
            M::NewRoute(_) | M::DelRoute(_) => {
                if let Some(route) = Route::from_message(message) {
                    let pods = route.table == PODS_TABLE && self.is_pod(route.dst.addr());
                    doubt.pods |= pods;
                    // A pod's route also goes when somebody switches IPv6 off for all links, which is told in no other way.
                    doubt.node |= pods && route.dst.addr().is_ipv6();
                    doubt.node |= self.enis.values().any(|(eni, _)| eni.table == route.table);
                }
            }
            M::NewRule(_) | M::DelRule(_) => {
                if let Some(rule) = Rule::from_message(message) {
                    let ours = [RULE_PODS, RULE_PRIMARY, RULE_ENI, RULE_ENI_ADDRESS];
                    doubt.node |= rule.protocol == PROTOCOL || ours.contains(&rule.priority);
                }
            }
            M::NewAddress(_) | M::DelAddress(_) => {
                if let Some(address) = Address::from_message(message) {
                    let on = |(_, index): &(_, _)| *index == Some(address.index);
                    doubt.node |= self.enis.values().any(on);
                    // The primary's are not ours; but they also go when its IPv6 is switched off.
                    let lost = matches!(message, M::DelAddress(_)) && address.address.is_ipv6();
                    doubt.node |= lost && address.index == self.primary;
                }
            }
            M::NewNeighbour(_) | M::DelNeighbour(_) => {
                doubt.pods |= neigh::address_of(message).is_some_and(|ip| self.is_pod(ip));
            }
            _ => {}
        }
    }

    fn doubt_link(&self, link: &Link, doubt: &mut Doubt) {
        if let Some(pod) = self.pods.get(&link.name) {
            // Not the settings: they follow while the pod is wired, and the kernel, which nobody can silence, may tell of
            // the carrier in between. A change of theirs is told as such.
            if pod.link_drift(link).is_empty() {
                doubt.links.remove(&link.name);
            } else {
                doubt.links.insert(link.name.clone());
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
            Some(mtu) => doubt.node |= !crate::host::is_right(link, mtu),
            // What software makes has a kind.
            None if link.kind.is_none() && mac != Mac::default() => {
                doubt.strangers.insert(mac);
            }
            None => {}
        }
    }

    /// Whether nothing of ours has this MAC address.
    pub(super) fn is_strange(&self, mac: Mac) -> bool {
        mac != self.config.primary_mac && self.enis.values().all(|(eni, _)| eni.mac != mac)
    }

    fn is_pod(&self, address: IpAddr) -> bool {
        self.pods.values().any(|pod| pod.address == address)
    }
}
