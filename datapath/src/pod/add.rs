//! ADD: three datagrams to the kernel, and how they are undone.
//!
//! Owns the hot path. Everything is validated before the first change. If a later step fails, everything is undone.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use super::egress;
use super::error::{AddError, Step};
use super::guard;
use super::pair::make_pair;
use super::pod_link::{PodLink, host_route};
use super::secondary;
use super::wired_pod::WiredPod;
use crate::constants::{gateway, is_egress};
use crate::netlink::addr::{self, Address};
use crate::netlink::link;
use crate::netlink::{Errno, Error, Family, Report, Request, Socket, neigh, qdisc, route};
use crate::netns::{Netns, NetnsId};

/// The created network of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// Interface index of the host end, in the host's namespace. It identifies the link: the kernel does not use an index
    /// twice, and the name may pass to another link.
    pub host_index: u32,
    /// Interface index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
    /// The name of the host end.
    pub host_name: String,
    /// Whether another link had the name that the host end shall have.
    pub contested: bool,
    /// Whether the pod's default route is another interface's; see [`PodLink::secondary`].
    pub secondary: bool,
    /// The address by which the pod reaches destinations of the other family, if it has one; see [`PodLink::egress`].
    pub egress: Option<IpAddr>,
}

/// Wires a pod (design §4.1). `host` acts in the host's namespace, `pod` in the pod's namespace, which is `netns`. `source`
/// is the source address of the node's own packets to the pod, if one is prescribed; the node must have it.
///
/// # Errors
/// [`AddError`]. All completed steps are undone first.
pub fn add(
    host: &mut Socket,
    pod: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
    source: Option<IpAddr>,
) -> Result<Wiring, AddError> {
    add_observed(host, pod, netns, link, source, |_| {})
}

/// As [`add`]. `done` is called after each step, for measurements.
///
/// # Errors
/// As [`add`].
pub fn add_observed(
    host: &mut Socket,
    pod: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
    source: Option<IpAddr>,
    mut done: impl FnMut(Step),
) -> Result<Wiring, AddError> {
    validate(link)?;
    same_namespace(pod, netns)?;
    let pair = make_pair(host, netns, link)?;
    let (host_index, pod_index) = (pair.indices.host, pair.indices.pod);
    done(Step::Pair);
    let pod_side = |e| AddError::refused(Step::PodSide, e);
    let wired = wire_pod(pod, link, pod_index).map_err(pod_side);
    let PodSide { secondary, egress } = wired.map_err(|e| undo(host, host_index, e))?;
    done(Step::PodSide);
    let wired = wire_host(host, link, egress, source, host_index)
        .and_then(|()| open_queue(pod, pod_index).map_err(pod_side));
    wired.map_err(|e| {
        if secondary {
            secondary::forget(pod, link, pod_index);
        }
        undo(host, host_index, e)
    })?;
    done(Step::HostSide);
    Ok(Wiring {
        host_index,
        pod_index,
        host_name: pair.host_name,
        contested: pair.contested,
        secondary,
        egress,
    })
}

fn validate(link: &PodLink) -> Result<(), AddError> {
    let invalid = |field, value: &dyn ToString| {
        Err(AddError::Invalid {
            field,
            value: value.to_string(),
        })
    };
    if !is_interface_name(&link.host_name) {
        return invalid("host interface name", &link.host_name);
    }
    if !(1..=255).contains(&link.owner.len()) {
        return invalid("owner", &link.owner);
    }
    if !is_interface_name(&link.pod_name) {
        return invalid("pod interface name", &link.pod_name);
    }
    if !is_pod_address(link.address) || is_egress(link.address) {
        return invalid("pod address", &link.address);
    }
    let other_family = |egress: &IpAddr| is_egress(*egress) && Family::of(*egress) != link.family();
    if let Some(egress) = link.egress.filter(|egress| !other_family(egress)) {
        return invalid("egress address", &egress);
    }
    Ok(())
}

fn is_pod_address(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.is_link_local(),
        IpAddr::V6(a) => a.is_unicast_link_local(),
    };
    !(special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// The kernel's own rule (`dev_valid_name`).
fn is_interface_name(name: &str) -> bool {
    let forbidden = |c: char| c == '/' || c == ':' || c == '\0' || c.is_ascii_whitespace();
    (1..=15).contains(&name.len()) && name != "." && name != ".." && !name.contains(forbidden)
}

/// Interface indices are small numbers that are equal in many pods: through the socket of another pod, this pod's
/// address would be set on the other pod's interface.
fn same_namespace(pod: &Socket, netns: BorrowedFd<'_>) -> Result<(), AddError> {
    let socket = pod
        .netns_id()
        .map_err(|e| AddError::refused(Step::PodSide, e))?;
    // The socket's namespace is valid, so a descriptor with the same identity is valid too. The full validation is
    // needed only to describe an invalid one.
    if NetnsId::of(netns).is_ok_and(|id| id == socket) {
        return Ok(());
    }
    let copy = netns
        .try_clone_to_owned()
        .map_err(|_| AddError::NamespaceGone)?;
    let netns = Netns::from_fd(copy)
        .map_err(|_| AddError::NamespaceGone)?
        .id();
    Err(AddError::NamespaceMismatch { socket, netns })
}

/// What ADD found out in the pod.
struct PodSide {
    /// Another interface has the default route.
    secondary: bool,
    /// The pod has this address of the other family.
    egress: Option<IpAddr>,
}

/// Step 2: [`wire_link`], and then the way to the other family.
fn wire_pod(pod: &mut Socket, link: &PodLink, index: u32) -> Result<PodSide, Error> {
    let secondary = wire_link(pod, link, index)?;
    let mut egress = link.egress.filter(|_| !secondary);
    if let Some(address) = egress
        && !egress::wire_pod(pod, link, index, address)?
    {
        egress = None;
    }
    Ok(PodSide { secondary, egress })
}

/// In the pod: the link, the address, the routes. The order matters: routes need the link up, and the default
/// route needs a reachable gateway. The loopback is configured by the runtime.
///
/// The link has no carrier before the host end is up. By then the kernel has been told not to create a link-local
/// address, because the pod has no neighbours that would need one. The kernel therefore does no duplicate address
/// detection and sends no router solicitations, which would otherwise use its work queues for every new pod.
///
/// Returns whether the pod has a default route by another interface already.
fn wire_link(pod: &mut Socket, link: &PodLink, index: u32) -> Result<bool, Error> {
    let family = link.family();
    let mut requests = vec![link::set_no_own_ipv6(index)];
    // While the link is down: otherwise the kernel waits for packets in progress.
    let bucket = link.egress_bucket();
    requests.extend(bucket.map(|bucket| qdisc::set(index, &bucket)));
    requests.extend([
        link::up(index),
        addr::add(&Address::host(index, link.address)),
        neigh::set_permanent(index, gateway(family), link.host_mac),
    ]);
    if secondary::may_be_secondary(index) && secondary::has_default_route(pod, family)? {
        without_ipv6(pod.batch(&requests)?, 0).ok()?;
        secondary::route_own_address(pod, link, index)?;
        return Ok(true);
    }
    let base = requests.len();
    let routes = link.pod_routes(index);
    requests.extend(routes.iter().map(route::add));
    let mut report = without_ipv6(pod.batch(&requests)?, 0);
    let routed = report.results.split_off(base);
    report.ok()?;
    let exists = |result: &Result<(), Error>| matches!(result, Err(e) if e.is(Errno::EEXIST));
    if !routed.iter().any(exists) {
        return routed
            .into_iter()
            .collect::<Result<(), _>>()
            .map(|()| false);
    }
    let made = routes
        .iter()
        .zip(routed)
        .filter(|(_, result)| result.is_ok());
    let requests: Vec<Request> = made.map(|(made, _)| route::del(made)).collect();
    pod.batch(&requests)?.ok()?;
    secondary::route_own_address(pod, link, index)?;
    Ok(true)
}

/// A link without IPv6 (the kernel was started without it, or the MTU is below 1280) refuses the setting in the request
/// at `position`. For an IPv4 pod this is not an error; an IPv6 pod fails at its address.
fn without_ipv6(mut report: Report, position: usize) -> Report {
    if let Some(result) = report.results.get_mut(position)
        && result.as_ref().is_err_and(|e| e.is(Errno::EAFNOSUPPORT))
    {
        *result = Ok(());
    }
    report
}

/// Step 3, on the host: the strict source check first, then the route that makes the pod reachable.
///
/// The host end is set up here and not at its creation. If it were up without a carrier, the kernel would search all
/// IPv6 routes of the host (`rt6_sync_down_dev`), and there were three for each pod. A link-local address would also
/// make every link-local source of the pod valid.
fn wire_host(
    host: &mut Socket,
    link: &PodLink,
    egress: Option<IpAddr>,
    source: Option<IpAddr>,
    index: u32,
) -> Result<(), AddError> {
    let mut requests = vec![
        // For a pod with an IPv6 address, this blocks all IPv4: there is no route back to any IPv4 source.
        // The owner comes with it: a link with a route always has one.
        link::with_alias(
            link::set_inet_conf(index, &guard::settings(link.address, &link.asked)),
            &link.owner,
        ),
        link::set_no_own_ipv6(index),
    ];
    let bucket = WiredPod::of(link, index).ingress_bucket();
    requests.extend(bucket.map(|bucket| qdisc::set(index, &bucket)));
    requests.push(link::up(index));
    let addresses = egress.into_iter().chain([link.address]);
    for address in addresses.clone() {
        requests.push(neigh::set_permanent(index, address, link.pod_mac));
    }
    let routes = requests.len();
    // Never "replace": an existing route is evidence that another pod has this address. The pod's own address is last: if it
    // is reachable, everything is there.
    for address in addresses.clone() {
        requests.push(route::add(&host_route(address, index, source)));
    }
    let failed = |e| AddError::refused(Step::HostSide, e);
    let report = host.batch(&requests).map_err(failed)?;
    let exists = |result: &Result<(), Error>| matches!(result, Err(e) if e.is(Errno::EEXIST));
    let taken = addresses
        .zip(&report.results[routes..])
        .find_map(|(address, result)| exists(result).then_some(address));
    let mut report = without_ipv6(report, 1);
    // The node has lost the source address a moment ago. The pod is reachable without it, and a repair adds it.
    if let Some(last) = report.results.last_mut()
        && source.is_some()
        && matches!(last, Err(e) if e.is(Errno::EINVAL))
    {
        *last = host.apply(&route::add(&host_route(link.address, index, None)));
    }
    match taken {
        Some(address) => Err(AddError::AddressInUse { address }),
        None => report.ok().map_err(failed),
    }
}

/// The pod's end was up before its peer, so its carrier came late. Until the kernel's link watch runs, every packet of
/// the pod is dropped: on a busy node, a new pod loses its first packets. Reading a link makes the kernel update its
/// state (Linux 6.8, `rtnl_getlink` in net/core/rtnetlink.c); on older kernels it has no effect.
fn open_queue(pod: &mut Socket, index: u32) -> Result<(), Error> {
    pod.batch(&[link::get(index)])?.ok()
}

/// One step undoes all three: with the host end, the kernel removes its peer and every address, route and neighbour on
/// both, including those that the failing step created.
fn undo(host: &mut Socket, host_index: u32, error: AddError) -> AddError {
    let result = host.apply(&link::del(host_index));
    let left = result.err().filter(|e| !e.is_gone());
    match error {
        AddError::Refused {
            step,
            source,
            left_behind,
        } => AddError::Refused {
            step,
            source,
            left_behind: left_behind.or(left),
        },
        other => other,
    }
}
