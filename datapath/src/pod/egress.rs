//! A pod's way to destinations of the other address family: an address that only this node knows, and a default route.
//!
//! The node translates it to its own address (`nft::egress::other_family`). Nobody can reach the pod at this address. The
//! objects are on the pod's one link and disappear with it.

use std::net::IpAddr;

use super::pod_link::PodLink;
use crate::constants::gateway;
use crate::netlink::addr::{self, Address};
use crate::netlink::neigh::{self, Neighbour};
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::{Errno, Error, Family, Request, Socket};

/// In the pod: address, gateway and default route. Returns false, and leaves nothing, if the pod has no place for them: it
/// has a default route of this family already, or its settings switch the family off (`disable_ipv6`).
pub(super) fn wire_pod(
    pod: &mut Socket,
    link: &PodLink,
    index: u32,
    egress: IpAddr,
) -> Result<bool, Error> {
    let mut requests = vec![
        addr::add(&Address::host(index, egress)),
        neighbour(link, index, egress),
    ];
    let routes = routes(index, egress);
    requests.extend(routes.iter().map(route::add));
    let report = pod.batch(&requests)?;
    let refused = report.results.iter().position(Result::is_err);
    let Some(position) = refused else {
        return Ok(true);
    };
    if !has_no_place(&report.results[position], position, egress) {
        return report.ok().map(|()| false);
    }
    let undo = [
        addr::del(&Address::host(index, egress)),
        neigh::del(index, gateway(Family::of(egress))),
    ];
    let undo = undo.into_iter().chain(routes.iter().map(route::del));
    let made = undo.zip(&report.results).filter(|(_, made)| made.is_ok());
    let mut undo: Vec<Request> = made.map(|(undo, _)| undo).collect();
    // The kernel removes routes together with their address.
    undo.reverse();
    pod.batch(&undo)?.ok()?;
    Ok(false)
}

/// IPv6 is switched off in the pod, on the link (its MTU is too small) or in the kernel, which then refuses the address; or
/// another interface has the default route.
fn has_no_place(refusal: &Result<(), Error>, position: usize, egress: IpAddr) -> bool {
    const OFF: [Errno; 5] = [
        Errno::EACCES,
        Errno::EINVAL,
        Errno::ENODEV,
        Errno::EAFNOSUPPORT,
        Errno::EOPNOTSUPP,
    ];
    let is = |errno: Errno| refusal.as_ref().is_err_and(|e| e.is(errno));
    let off = position == 0 && egress.is_ipv6() && OFF.into_iter().any(is);
    off || is(Errno::EEXIST)
}

fn neighbour(link: &PodLink, index: u32, egress: IpAddr) -> Request {
    neigh::set_permanent(index, gateway(Family::of(egress)), link.host_mac)
}

/// One route. For IPv6, also the one that the kernel adds late; see [`Route::own`].
fn routes(index: u32, egress: IpAddr) -> Vec<Route> {
    let family = Family::of(egress);
    let default = Route::via(family.everything(), gateway(family), index, MAIN);
    match family {
        Family::V4 => vec![Route {
            onlink: true,
            ..default
        }],
        Family::V6 => vec![Route::own(egress, index), default],
    }
}

/// Whether the pod has everything that [`wire_pod`] made.
pub(super) fn is_wired(
    pod: &mut Socket,
    link: &PodLink,
    index: u32,
    egress: IpAddr,
) -> Result<bool, Error> {
    let family = Family::of(egress);
    let neighbour = Neighbour {
        index,
        address: gateway(family),
        mac: link.host_mac,
        permanent: true,
    };
    let everything = family.everything();
    let addresses = pod.addresses(family, Some(index))?;
    let routes = pod.routes_over(family, MAIN, index)?;
    let neighbours = pod.neighbours(family, Some(index))?;
    Ok(addresses.iter().any(|a| a.address == egress)
        && routes.iter().any(|r| r.dst == everything)
        && neighbours.contains(&neighbour))
}
