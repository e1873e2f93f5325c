//! Compares the kernel's state with a [`PodLink`], and lists the pods in the kernel.
//!
//! Only reads.

use std::collections::HashMap;
use std::net::IpAddr;

use nettypes::HostPort;

use super::drift::{Drift, Side, compare_link, has_route};
use super::egress;
use super::pod_link::PodLink;
use super::secondary;
use super::wired_pod::WiredPod;
use crate::constants::{PODS_TABLE, gateway, is_egress};
use crate::netlink::addr::Address;
use crate::netlink::link::Link;
use crate::netlink::neigh::Neighbour;
use crate::netlink::route::MAIN;
use crate::netlink::{Error, Family, Mac, Socket};
use crate::uplink::Uplink;

/// A pod's host end as found in the kernel, for a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSide {
    /// Interface index.
    pub ifindex: u32,
    /// Interface name.
    pub name: String,
    /// Whose link it is; `None` if it was made by a release that did not write it, or before an ADD was complete.
    pub owner: Option<String>,
    /// Where its packets leave the node, from the link group.
    pub uplink: Uplink,
    /// MAC address of the host end.
    pub mac: Option<Mac>,
    /// The address that the host routes to it; `None` if an ADD or a DEL was interrupted.
    pub address: Option<IpAddr>,
    /// The address of the other family that the host routes to it, if any.
    pub egress: Option<IpAddr>,
    /// The host ports that lead to this address, if the list includes them.
    pub ports: Vec<HostPort>,
}

/// Compares the kernel with `link`, whose host end has this index. An empty result means that everything is as
/// [`add`](super::add) created it. Objects that a pod added to its own namespace are ignored, and so is the name of the host
/// end, which may have passed to a younger sandbox of the pod.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn check(
    host: &mut Socket,
    pod: &mut Socket,
    link: &PodLink,
    host_index: u32,
) -> Result<Vec<Drift>, Error> {
    let mut drift = Vec::new();
    let host_end = host.link_by_index(host_index)?;
    let pod_end = pod.link_by_name(&link.pod_name)?;
    let want = WiredPod::of(link, host_index);
    match &host_end {
        None => drift.push(Drift::LinkMissing { side: Side::Host }),
        Some(end) => {
            let (mut routes, mut neighbours) = (Vec::new(), Vec::new());
            for family in want.families() {
                routes.extend(host.routes_over(family, PODS_TABLE, end.index)?);
                neighbours.extend(host.neighbours(family, Some(end.index))?);
            }
            drift.extend(want.drift(end, &routes, &neighbours, None));
            if want.ingress_bucket().is_some() {
                drift.extend(want.shape_drift(host.qdisc(end.index)?.as_ref()));
            }
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
    let mut addresses: HashMap<u32, Vec<IpAddr>> = HashMap::new();
    for route in &routes {
        if route.dst.prefix_len() == route.dst.max_prefix_len() {
            let over = route.oif.unwrap_or_default();
            addresses.entry(over).or_default().push(route.dst.addr());
        }
    }
    let routed = |link: &Link, egress: bool| {
        let mut over = addresses.get(&link.index).into_iter().flatten();
        over.find(|address| is_egress(**address) == egress).copied()
    };
    let ours = links.iter().filter_map(|link| {
        let uplink = Uplink::of_group(link.group)?;
        Some(HostSide {
            ifindex: link.index,
            name: link.name.clone(),
            owner: link.alias.clone(),
            uplink,
            mac: link.mac,
            address: routed(link, false),
            egress: routed(link, true),
            ports: Vec::new(),
        })
    });
    Ok(ours.collect())
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
    if link.secondary {
        if !secondary::is_routed(pod, link, index)? {
            drift.push(Drift::SourceRoutingMissing { address });
        }
    } else {
        let routes = pod.routes_over(family, MAIN, index)?;
        let [first, default] = link.pod_routes(index);
        if family == Family::V4 && !has_route(&routes, &first) {
            drift.push(Drift::GatewayRouteMissing);
        }
        if !has_route(&routes, &default) {
            drift.push(Drift::DefaultRouteMissing);
        }
    }
    if let Some(bucket) = link.egress_bucket()
        && !pod.qdisc(index)?.is_some_and(|found| found.is(&bucket))
    {
        drift.push(Drift::Shaping {
            side: Side::Pod,
            rate: bucket.rate,
        });
    }
    if let Some(address) = link.egress
        && !egress::is_wired(pod, link, index, address)?
    {
        drift.push(Drift::EgressMissing { address });
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
