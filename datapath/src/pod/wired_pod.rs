//! Wired pods: the host's side of each, and how differences in it are corrected.
//!
//! Owns the requests that correct a [`Drift`]. It cannot reach the pod's own namespace, where the pod may change what it
//! likes. Must not make or remove links: a missing link means that the pod is gone.

use std::net::IpAddr;

use super::bandwidth::bucket;
use super::drift::{Drift, Side, compare_link, has_route, has_sourced_route, ipv6_drift};
use super::guard;
use super::pod_link::{PodLink, host_route};
use crate::netlink::link::{self, Change, Link};
use crate::netlink::neigh::{self, Neighbour};
use crate::netlink::qdisc::{self, Qdisc, TokenBucket};
use crate::netlink::route::{self, Route};
use crate::netlink::{Family, Mac, Request};
use crate::uplink::Uplink;
use nettypes::Asked;

/// The host's side of a wired pod. Not all of it is known for a pod that was found without a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WiredPod {
    /// Interface index of the host end.
    pub host_index: u32,
    /// The name that the host end shall have.
    pub host_name: String,
    /// Whose link it is: the alias of the host end.
    pub owner: Option<String>,
    /// The pod's address.
    pub address: IpAddr,
    /// Its address of the other family, if it has one.
    pub egress: Option<IpAddr>,
    /// Where its packets leave the node.
    pub uplink: Uplink,
    /// Of the host end, in bytes.
    pub mtu: Option<u32>,
    /// MAC address of the host end.
    pub host_mac: Option<Mac>,
    /// MAC address of the pod's end.
    pub pod_mac: Option<Mac>,
    /// What the pod asks of its network besides its address.
    pub asked: Asked,
}

impl WiredPod {
    /// The host's side of `link`, whose host end has this index.
    #[must_use]
    pub fn of(link: &PodLink, host_index: u32) -> Self {
        Self {
            host_index,
            host_name: link.host_name.clone(),
            owner: Some(link.owner.clone()),
            address: link.address,
            egress: link.egress.filter(|_| !link.secondary),
            uplink: link.uplink,
            mtu: Some(link.mtu),
            host_mac: Some(link.host_mac),
            pod_mac: Some(link.pod_mac),
            asked: link.asked.clone(),
        }
    }

    /// Its addresses, of the family of pods and of the other one.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> + Clone + use<> {
        [self.address].into_iter().chain(self.egress)
    }

    /// The families of its addresses.
    pub(super) fn families(&self) -> impl Iterator<Item = Family> + use<> {
        self.addresses().map(Family::of)
    }

    /// What holds the packets to the pod to the rate that it asks for.
    pub(crate) fn ingress_bucket(&self) -> Option<TokenBucket> {
        let limit = self.asked.bandwidth.ingress?;
        Some(bucket(limit, self.mtu?))
    }

    /// Whether the host end holds the pod to its rate. `root`: what is at the root of the link.
    pub(super) fn shape_drift(&self, root: Option<&Qdisc>) -> Option<Drift> {
        let wanted = self.ingress_bucket()?;
        let right = root.is_some_and(|root| root.is(&wanted));
        (!right).then_some(Drift::Shaping {
            side: Side::Host,
            rate: wanted.rate,
        })
    }

    /// The differences of the host's side: of its link, the routes of the pods table over it and the neighbours on it.
    ///
    /// `source`: the source address that its route shall have, if one is prescribed.
    #[must_use]
    pub fn drift(
        &self,
        end: &Link,
        routes: &[Route],
        neighbours: &[Neighbour],
        source: Option<IpAddr>,
    ) -> Vec<Drift> {
        let mut drift = self.link_drift(end);
        let wrong = |setting: Option<i32>, want| setting.filter(|have| *have != want);
        drift.extend(wrong(end.rp_filter, 1).map(|have| Drift::RpFilter { have }));
        drift.extend(wrong(end.forwarding, 1).map(|_| Drift::Forwarding));
        drift.extend(wrong(end.accept_redirects, 0).map(|_| Drift::Redirects));
        if guard::routes_loopback(self.address, &self.asked) {
            drift.extend(wrong(end.route_localnet, 1).map(|_| Drift::RouteLocalnet));
        }
        if self.addresses().any(|address| address.is_ipv6()) {
            drift.extend(end.ipv6.iter().flat_map(ipv6_drift));
        }
        for address in self.addresses() {
            let route = host_route(address, end.index, source);
            if !has_route(routes, &route) {
                drift.push(Drift::HostRouteMissing { address });
            } else if let Some(want) = route.source.filter(|_| !has_sourced_route(routes, &route)) {
                drift.push(Drift::HostRouteSource { address, want });
            }
            let missing = |mac| !neighbours.contains(&neighbour(end.index, address, mac));
            if self.pod_mac.is_some_and(missing) {
                drift.push(Drift::NeighbourMissing {
                    side: Side::Host,
                    address,
                });
            }
        }
        drift
    }

    /// As [`WiredPod::drift`], of what the pair is made with.
    #[must_use]
    pub fn link_drift(&self, end: &Link) -> Vec<Drift> {
        let mut drift = Vec::new();
        compare_link(Side::Host, end, self.mtu, self.host_mac, &mut drift);
        let want = self.uplink.group();
        if end.group != want {
            drift.push(Drift::Group {
                want,
                have: end.group,
            });
        }
        if self.owner.is_some() && self.owner != end.alias {
            drift.push(Drift::Owner);
        }
        // Without the permanent neighbour entry, a link without ARP could not send anything.
        if end.arp && self.pod_mac.is_some() {
            drift.push(Drift::Arp);
        }
        drift
    }

    /// The requests after which a host end that was set down is as before.
    pub(super) fn set_up_again(&self, end: &Link, source: Option<IpAddr>) -> Vec<Request> {
        let side = Side::Host;
        let mut lost = vec![Drift::LinkDown { side }];
        lost.extend(
            self.addresses()
                .map(|address| Drift::HostRouteMissing { address }),
        );
        self.remedy(end, &lost, source)
    }

    /// The requests that correct `drift`, in an order in which none undoes another: a link loses its neighbours when it goes
    /// up, leaves ARP or changes its MAC address. IPv6 settings that exist only in `/proc/sys` are the reconciler's.
    pub(super) fn remedy(
        &self,
        end: &Link,
        drift: &[Drift],
        source: Option<IpAddr>,
    ) -> Vec<Request> {
        let has = |wanted: fn(&Drift) -> bool| drift.iter().any(wanted);
        let up = has(|d| matches!(d, Drift::LinkDown { .. }));
        let arp = has(|d| matches!(d, Drift::Arp));
        let mac = has(|d| matches!(d, Drift::Mac { .. }));
        let mtu = has(|d| matches!(d, Drift::Mtu { .. }));
        let moved = has(|d| matches!(d, Drift::Group { .. }));
        let owner = self.owner.as_deref();
        let owner = owner.filter(|_| has(|d| matches!(d, Drift::Owner)));
        let settings = |d: &Drift| {
            matches!(
                d,
                Drift::RpFilter { .. }
                    | Drift::Forwarding
                    | Drift::Redirects
                    | Drift::RouteLocalnet
            )
        };
        let change = Change {
            up: up.then_some(true),
            arp: arp.then_some(false),
            mtu: self.mtu.filter(|_| mtu),
            mac: self.host_mac.filter(|_| mac),
            group: moved.then_some(self.uplink.group()),
            alias: owner,
            ..Change::default()
        };
        let mut requests = Vec::new();
        // Before the link comes up: the kernel assigns these addresses at that moment.
        if has(|d| matches!(d, Drift::OwnIpv6)) {
            requests.push(link::set_no_own_ipv6(end.index));
        }
        if up || arp || mac || mtu || moved || owner.is_some() {
            requests.push(link::set(end.index, &change));
        }
        if has(settings) {
            let settings = guard::settings(self.address, &self.asked);
            requests.push(link::set_inet_conf(end.index, &settings));
        }
        if has(|d| matches!(d, Drift::Shaping { .. })) {
            let shape = self
                .ingress_bucket()
                .map(|bucket| qdisc::set(end.index, &bucket));
            requests.extend(shape);
        }
        let deaf = up || arp || mac || has(|d| matches!(d, Drift::NeighbourMissing { .. }));
        if let Some(mac) = self.pod_mac.filter(|_| deaf) {
            let each = self.addresses();
            requests.extend(each.map(|address| neigh::set_permanent(end.index, address, mac)));
        }
        for difference in drift {
            match *difference {
                // "add", never "replace": a route over another link shows that another pod has this address.
                Drift::HostRouteMissing { address } => {
                    requests.push(route::add(&host_route(address, end.index, source)));
                }
                // This route is over the pod's own link, so that "replace" is safe, and leaves no gap.
                Drift::HostRouteSource { address, .. } => {
                    requests.push(route::replace(&host_route(address, end.index, source)));
                }
                _ => {}
            }
        }
        requests
    }
}

fn neighbour(index: u32, address: IpAddr, mac: Mac) -> Neighbour {
    Neighbour {
        index,
        address,
        mac,
        permanent: true,
    }
}
