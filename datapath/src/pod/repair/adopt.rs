//! Pods that another plugin wired: their host ends become Hawser's, or stop being so, while packets flow.
//!
//! The pod's end stays as it is: its default route leads to the same gateway, with the MAC address of the same host end. On the
//! host's side, what is added is complete before what it replaces is removed; who removes it is the caller's business.

use std::net::IpAddr;

use super::super::pod_link::host_route;
use super::super::wired_pod::WiredPod;
use crate::constants::PODS_TABLE;
use crate::netlink::link::{self, Change, InetConf};
use crate::netlink::{Error, Family, Report, Request, Socket};
use crate::netlink::{neigh, route};
use crate::uplink::Uplink;

/// Makes an existing link that of `pod`: its route in the pods table first, and then its group, its owner and its settings. A
/// link of a pod without a route would be taken for an interrupted ADD. Returns whether the link is still there.
///
/// # Errors
/// The kernel's error: `EEXIST` if another pod's link has the address. Nothing but the route has changed then.
pub fn adopt(host: &mut Socket, pod: &WiredPod, source: Option<IpAddr>) -> Result<bool, Error> {
    let Some(end) = host.link_by_index(pod.host_index)? else {
        return Ok(false);
    };
    let family = Family::of(pod.address);
    let routes = host.routes_over(family, PODS_TABLE, end.index)?;
    let route = host_route(pod.address, end.index, source);
    if !routes.iter().any(|present| present.dst == route.dst) {
        host.apply(&route::add(&route))?;
    }
    let routes = host.routes_over(family, PODS_TABLE, end.index)?;
    let neighbours = host.neighbours(family, Some(end.index))?;
    let drift = pod.drift(&end, &routes, &neighbours, source);
    host.batch(&pod.remedy(&end, &drift, source))
        .and_then(Report::ok)?;
    Ok(true)
}

/// Gives up the host ends of all pods: they lose their group and owner, resolve neighbours again, and get the settings that
/// `defaults` has for new links. Their routes and rules are not touched.
///
/// An IPv6 pod that Hawser wired keeps its permanent neighbour entry. Its host end was created without a link-local address,
/// and the kernel sends no neighbour solicitation from such a link: the pod would be unreachable.
///
/// # Errors
/// The kernel's error.
pub fn let_go(host: &mut Socket, defaults: &[(InetConf, u32)]) -> Result<usize, Error> {
    let mut links = host.links()?;
    links.retain(|link| Uplink::of_group(link.group).is_some());
    let plain = Change {
        arp: Some(true),
        group: Some(0),
        alias: Some(""),
        ..Change::default()
    };
    for end in &links {
        let without_own = end.ipv6.is_some_and(|conf| conf.no_own_addresses);
        let mut requests = vec![link::set_inet_conf(end.index, defaults)];
        requests.extend(without_own.then(|| link::set_own_ipv6(end.index)));
        let neighbours = if without_own {
            permanent(host, end.index)?
        } else {
            Vec::new()
        };
        requests.push(link::set(end.index, &plain));
        // The kernel forgets all neighbours of a link that begins to resolve them.
        requests.extend(neighbours);
        let report = host.batch(&requests)?;
        let mut refused = report.results.into_iter().filter_map(Result::err);
        // It belonged to a pod that has ended.
        if let Some(error) = refused.find(|e| !e.is_gone()) {
            return Err(error);
        }
    }
    Ok(links.len())
}

/// Requests that restore the permanent IPv6 neighbours of a link.
fn permanent(host: &mut Socket, index: u32) -> Result<Vec<Request>, Error> {
    let mut neighbours = host.neighbours(Family::V6, Some(index))?;
    neighbours.retain(|neighbour| neighbour.permanent);
    let restored = neighbours.iter();
    Ok(restored
        .map(|n| neigh::set_permanent(index, n.address, n.mac))
        .collect())
}
