//! Compares the kernel's state with a [`PodLink`], and lists the pods in the kernel.
//!
//! Only reads.

use std::net::IpAddr;

use super::{PodLink, WiredPod, host_route};
use crate::constants::{PODS_TABLE, gateway, group, index_of_group};
use crate::netlink::addr::Address;
use crate::netlink::link::{Inet6Conf, Link};
use crate::netlink::neigh::Neighbour;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::{Error, Family, Mac, Socket};

/// An end of the pair, and the namespace it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The host's.
    Host,
    /// The pod's.
    Pod,
}

/// One difference between the actual and the desired network of a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Drift {
    #[error("{side:?} link is missing")]
    LinkMissing { side: Side },
    #[error("{side:?} link is down")]
    LinkDown { side: Side },
    #[error("{side:?} link has MTU {have} instead of {want}")]
    Mtu { side: Side, want: u32, have: u32 },
    #[error("{side:?} link has MAC {} instead of {want}", have.map_or_else(|| "none".to_owned(), |mac| mac.to_string()))]
    Mac {
        side: Side,
        want: Mac,
        have: Option<Mac>,
    },
    #[error("the two links are not ends of one pair")]
    NotPaired,
    #[error("host link is in group {have:#x} instead of {want:#x}")]
    Group { want: u32, have: u32 },
    #[error("host link takes part in ARP")]
    Arp,
    #[error("host link does not check sources (rp_filter {have})")]
    RpFilter { have: i32 },
    #[error("host link does not forward")]
    Forwarding,
    #[error("host link accepts redirects")]
    Redirects,
    #[error("host link has IPv6 disabled")]
    Ipv6Off,
    #[error("host link is not an IPv6 router and therefore accepts advertisements and redirects")]
    Ipv6Host,
    #[error("host link assigns its own IPv6 addresses")]
    OwnIpv6,
    #[error("pod link has no address {address}")]
    AddressMissing { address: IpAddr },
    #[error("pod has no route to its gateway")]
    GatewayRouteMissing,
    #[error("pod has no default route")]
    DefaultRouteMissing,
    #[error("host has no route to {address}")]
    HostRouteMissing { address: IpAddr },
    #[error("{side:?} has no permanent neighbour {address}")]
    NeighbourMissing { side: Side, address: IpAddr },
}

/// A pod's host end as found in the kernel, for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Index of its ENI, from the link group.
    pub index: u16,
    /// MAC address of the host end.
    pub mac: Option<Mac>,
    /// The address that the host routes to it; `None` if an ADD or a DEL was interrupted.
    pub address: Option<IpAddr>,
}

/// Compares the kernel with `link`. An empty result means that everything is as [`add`](super::add) created it. Objects
/// that a pod added to its own namespace are ignored.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn check(host: &mut Socket, pod: &mut Socket, link: &PodLink) -> Result<Vec<Drift>, Error> {
    let mut drift = Vec::new();
    let host_end = host.link_by_name(&link.host_name)?;
    let pod_end = pod.link_by_name(&link.pod_name)?;
    let want = WiredPod::from(link);
    match &host_end {
        None => drift.push(Drift::LinkMissing { side: Side::Host }),
        Some(end) => {
            let family = link.family();
            let routes = host.routes_over(family, PODS_TABLE, end.index)?;
            let neighbours = host.neighbours(family, Some(end.index))?;
            drift.extend(want.drift(end, &routes, &neighbours));
        }
    }
    match &pod_end {
        None => drift.push(Drift::LinkMissing { side: Side::Pod }),
        Some(end) => compare_link(
            Side::Pod,
            end,
            Some(link.mtu),
            Some(link.pod_mac),
            &mut drift,
        ),
    }
    if let (Some(h), Some(p)) = (&host_end, &pod_end)
        && (h.peer, p.peer) != (Some(p.index), Some(h.index))
    {
        drift.push(Drift::NotPaired);
    }
    if let Some(end) = &pod_end {
        compare_pod(pod, end.index, link, &mut drift)?;
    }
    Ok(drift)
}

/// Every pod link of the host's namespace, by link group, with the address that is routed to it.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn list(host: &mut Socket) -> Result<Vec<HostSide>, Error> {
    let links = host.links()?;
    let mut routes = host.routes(Family::V4, Some(PODS_TABLE))?;
    // For both families, whichever the node uses now: a wired pod must not be mistaken for an interrupted ADD.
    routes.extend(host.routes(Family::V6, Some(PODS_TABLE))?);
    let routed = |link: &Link| {
        routes
            .iter()
            .find(|r| r.oif == Some(link.index) && r.dst.prefix_len() == r.dst.max_prefix_len())
    };
    let ours = links.iter().filter_map(|link| {
        let index = index_of_group(link.group)?;
        let address = routed(link).map(|r| r.dst.addr());
        Some(HostSide {
            ifindex: link.index,
            name: link.name.clone(),
            index,
            mac: link.mac,
            address,
        })
    });
    Ok(ours.collect())
}

/// Unknown properties are not compared.
fn compare_link(
    side: Side,
    end: &Link,
    mtu: Option<u32>,
    mac: Option<Mac>,
    drift: &mut Vec<Drift>,
) {
    if !end.up {
        drift.push(Drift::LinkDown { side });
    }
    if let Some(want) = mtu.filter(|mtu| *mtu != end.mtu) {
        drift.push(Drift::Mtu {
            side,
            want,
            have: end.mtu,
        });
    }
    if let Some(want) = mac.filter(|mac| end.mac != Some(*mac)) {
        drift.push(Drift::Mac {
            side,
            want,
            have: end.mac,
        });
    }
}

impl WiredPod {
    /// The differences of the host's side: of its link, the routes of the pods table over it and the neighbours on it.
    #[must_use]
    pub fn drift(&self, end: &Link, routes: &[Route], neighbours: &[Neighbour]) -> Vec<Drift> {
        let mut drift = self.link_drift(end);
        let wrong = |setting: Option<i32>, want| setting.filter(|have| *have != want);
        drift.extend(wrong(end.rp_filter, 1).map(|have| Drift::RpFilter { have }));
        drift.extend(wrong(end.forwarding, 1).map(|_| Drift::Forwarding));
        drift.extend(wrong(end.accept_redirects, 0).map(|_| Drift::Redirects));
        if self.address.is_ipv6() {
            drift.extend(end.ipv6.iter().flat_map(ipv6_drift));
        }
        let address = self.address;
        if !has_route(routes, &host_route(address, end.index)) {
            drift.push(Drift::HostRouteMissing { address });
        }
        let missing = |mac| !neighbours.contains(&self.neighbour(end.index, mac));
        if self.pod_mac.is_some_and(missing) {
            drift.push(Drift::NeighbourMissing {
                side: Side::Host,
                address,
            });
        }
        drift
    }

    /// As [`WiredPod::drift`], of what the pair is made with.
    #[must_use]
    pub fn link_drift(&self, end: &Link) -> Vec<Drift> {
        let mut drift = Vec::new();
        compare_link(Side::Host, end, self.mtu, self.host_mac, &mut drift);
        let want = group(self.index);
        if end.group != want {
            drift.push(Drift::Group {
                want,
                have: end.group,
            });
        }
        // Without the permanent neighbour entry, a link without ARP could not send anything.
        if end.arp && self.pod_mac.is_some() {
            drift.push(Drift::Arp);
        }
        drift
    }

    fn neighbour(&self, index: u32, mac: Mac) -> Neighbour {
        Neighbour {
            index,
            address: self.address,
            mac,
            permanent: true,
        }
    }
}

fn ipv6_drift(have: &Inet6Conf) -> impl Iterator<Item = Drift> + use<> {
    let wrong = [
        (have.disabled, Drift::Ipv6Off),
        (!have.forwarding, Drift::Ipv6Host),
        (!have.no_own_addresses, Drift::OwnIpv6),
    ];
    wrong
        .into_iter()
        .filter_map(|(is, drift)| is.then_some(drift))
}

fn compare_pod(
    pod: &mut Socket,
    index: u32,
    link: &PodLink,
    drift: &mut Vec<Drift>,
) -> Result<(), Error> {
    let (address, family) = (link.address, link.family());
    if !pod
        .addresses(family, Some(index))?
        .contains(&Address::host(index, address))
    {
        drift.push(Drift::AddressMissing { address });
    }
    let routes = pod.routes_over(family, MAIN, index)?;
    let [first, default] = link.pod_routes(index);
    if family == Family::V4 && !has_route(&routes, &first) {
        drift.push(Drift::GatewayRouteMissing);
    }
    if !has_route(&routes, &default) {
        drift.push(Drift::DefaultRouteMissing);
    }
    let want = Neighbour {
        index,
        address: gateway(family),
        mac: link.host_mac,
        permanent: true,
    };
    if !pod.neighbours(family, Some(index))?.contains(&want) {
        drift.push(Drift::NeighbourMissing {
            side: Side::Pod,
            address: gateway(family),
        });
    }
    Ok(())
}

/// An equivalent route is enough, whoever created it: a service mesh may have replaced ours.
fn has_route(routes: &[Route], want: &Route) -> bool {
    routes
        .iter()
        .any(|r| (r.dst, r.gateway, r.oif, r.kind) == (want.dst, want.gateway, want.oif, want.kind))
}
