//! ADD: three datagrams to the kernel, and how they are undone.
//!
//! Owns the hot path. Everything is validated before the first change. If a later step fails, everything is undone.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_core::NlasIterator;
use tracing::debug;

use super::guard::GUARD;
use super::pod_link::{PodLink, host_route};
use crate::constants::{GROUP_DYING, gateway};
use crate::netlink::addr::{self, Address};
use crate::netlink::link;
use crate::netlink::{Errno, Error, Frame, Report, Socket, neigh, route};
use crate::netns::{Netns, NetnsId};
use crate::uplink::Uplink;

/// The steps of an ADD, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The pair is created, each end in its namespace.
    Pair,
    /// The pod's end is up and has its address and routes.
    PodSide,
    /// The host has the route to the pod.
    HostSide,
}

/// The created network of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkIndices {
    /// Interface index of the host end, in the host's namespace.
    pub host_index: u32,
    /// Interface index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
}

/// Why a pod could not be wired. Everything is undone, except if [`AddError::Refused`] says otherwise.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The description is invalid for any kernel.
    #[error("invalid {field}: {value:?}")]
    Invalid {
        /// The invalid part of the description.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// The pod already has an interface of this name.
    #[error("interface {name} already exists in the pod's network namespace")]
    InterfaceExists {
        /// The pod's interface name.
        name: String,
    },
    /// The name of the host end belongs to a link that is not ours.
    #[error("host link {name} already exists and is not a pod link")]
    HostNameTaken {
        /// The host end's name.
        name: String,
    },
    /// The host already has a route to this address: another sandbox may be using it.
    #[error("address {address} is still routed to another pod")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The descriptor is not a network namespace (any more).
    #[error("the pod's network namespace no longer exists")]
    NamespaceGone,
    /// The socket was not opened in the namespace that was passed with it.
    #[error("the pod's netlink socket belongs to namespace {socket:?} and not to {netns:?}")]
    NamespaceMismatch {
        /// The socket's namespace.
        socket: NetnsId,
        /// The pod's namespace.
        netns: NetnsId,
    },
    /// The kernel refused a step, or a socket failed.
    #[error("{step:?}{}", if left_behind.is_some() { ", and the host end could not be removed" } else { "" })]
    Refused {
        /// The step.
        step: Step,
        /// The kernel's error.
        #[source]
        source: Error,
        /// Why the host end still exists, if it does.
        left_behind: Option<Error>,
    },
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
) -> Result<LinkIndices, AddError> {
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
) -> Result<LinkIndices, AddError> {
    validate(link)?;
    same_namespace(pod, netns)?;
    let pod_side = |e| refused(Step::PodSide, e);
    let wired = make_pair(host, netns, link)?;
    done(Step::Pair);
    wire_pod(pod, link, wired.pod_index).map_err(|e| undo(host, wired, pod_side(e)))?;
    done(Step::PodSide);
    wire_host(host, link, source, wired.host_index).map_err(|e| undo(host, wired, e))?;
    open_queue(pod, wired.pod_index).map_err(|e| undo(host, wired, pod_side(e)))?;
    done(Step::HostSide);
    Ok(wired)
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
    if !is_interface_name(&link.pod_name) {
        return invalid("pod interface name", &link.pod_name);
    }
    if !is_pod_address(link.address) {
        return invalid("pod address", &link.address);
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
    let socket = pod.netns_id().map_err(|e| refused(Step::PodSide, e))?;
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

/// Step 1, repeated once if a half-made earlier attempt is in the way.
fn make_pair(
    host: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
) -> Result<LinkIndices, AddError> {
    match try_pair(host, netns, link) {
        Err(e) if e.is(Errno::EEXIST) => {}
        other => return other.map_err(|e| pair_failed(host, link, e)),
    }
    // EEXIST does not tell which of the two names exists.
    let name = &link.host_name;
    let Some(holder) = host
        .link_by_name(name)
        .map_err(|e| refused(Step::Pair, e))?
    else {
        return Err(AddError::InterfaceExists {
            name: link.pod_name.clone(),
        });
    };
    // A link that a crash left in the group for deletion is ours too.
    let ours = Uplink::of_group(holder.group).is_some() || holder.group == GROUP_DYING;
    if holder.kind.as_deref() != Some("veth") || !ours {
        return Err(AddError::HostNameTaken { name: name.clone() });
    }
    debug!(host_end = %name, "an earlier attempt's link is replaced");
    host.apply(&link::del(holder.index))
        .map_err(|e| refused(Step::Pair, e))?;
    match try_pair(host, netns, link) {
        Err(e) if e.is(Errno::EEXIST) => Err(AddError::InterfaceExists {
            name: link.pod_name.clone(),
        }),
        other => other.map_err(|e| pair_failed(host, link, e)),
    }
}

/// One `RTM_NEWLINK`, whose echo contains both indices: the host end's own, and the other end's in `IFLA_LINK`. This
/// avoids a lookup, a second request (65 µs for the link with all its attributes), and a guess of a free index (which
/// the kernel would accept for both ends). Links are echoed from Linux 6.2 on; before, the host end is looked up.
fn try_pair(
    host: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
) -> Result<LinkIndices, Error> {
    let pair = link::add_veth_with_one_queue(&link.host_end(), &link.pod_end(), Some(netns));
    let request = link::echo(link::without_arp(pair));
    let mut wired = None;
    host.exchange(std::slice::from_ref(&request), |_, frame| {
        wired = wired.or(indices(&frame))
    })?
    .ok()?;
    wired.map_or_else(|| ask_indices(host, &link.host_name), Ok)
}

/// The result that the echo would have contained.
fn ask_indices(host: &mut Socket, host_name: &str) -> Result<LinkIndices, Error> {
    let host_end = host.link_by_name(host_name)?;
    let both = host_end.and_then(|l| {
        Some(LinkIndices {
            host_index: l.index,
            pod_index: l.peer?,
        })
    });
    both.ok_or(Error::Truncated { op: "link get" })
}

/// The two indices in an echoed link, without decoding its sixty other attributes.
fn indices(frame: &Frame<'_>) -> Option<LinkIndices> {
    const IFINFOMSG: usize = 16;
    const IFLA_LINK: u16 = 5;
    let payload = frame.payload();
    let number = |bytes: &[u8]| Some(u32::from_ne_bytes(bytes.try_into().ok()?));
    let host_index = number(payload.get(4..8)?)?;
    let mut attributes = NlasIterator::new(payload.get(IFINFOMSG..)?);
    let peer = attributes.find_map(|a| a.ok().filter(|a| a.kind() == IFLA_LINK))?;
    Some(LinkIndices {
        host_index,
        pod_index: number(peer.value())?,
    })
}

/// The kernel removes a pair that it refuses. If its answer was lost, the pair may exist.
fn pair_failed(host: &mut Socket, link: &PodLink, source: Error) -> AddError {
    if source.errno() == Some(Errno::EBADF) {
        return AddError::NamespaceGone;
    }
    let left_behind = match source {
        Error::Kernel { .. } => None,
        _ => host
            .apply(&link::del_by_name(&link.host_name))
            .err()
            .filter(|e| !e.is_gone()),
    };
    AddError::Refused {
        step: Step::Pair,
        source,
        left_behind,
    }
}

/// Step 2, in the pod: the link, the address, the routes. The order matters: routes need the link up, and the default
/// route needs a reachable gateway. The loopback is configured by the runtime.
///
/// The link has no carrier before the host end is up. By then the kernel has been told not to create a link-local
/// address, because the pod has no neighbours that would need one. The kernel therefore does no duplicate address
/// detection and sends no router solicitations, which would otherwise use its work queues for every new pod.
fn wire_pod(pod: &mut Socket, link: &PodLink, index: u32) -> Result<(), Error> {
    let family = link.family();
    let [first, default] = link.pod_routes(index);
    let requests = [
        link::set_no_own_ipv6(index),
        link::up(index),
        addr::add(&Address::host(index, link.address)),
        route::add(&first),
        route::add(&default),
        neigh::set_permanent(index, gateway(family), link.host_mac),
    ];
    without_ipv6(pod.batch(&requests)?, 0).ok()
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
    source: Option<IpAddr>,
    index: u32,
) -> Result<(), AddError> {
    let requests = [
        // For a pod with an IPv6 address, this blocks all IPv4: there is no route back to any IPv4 source.
        link::set_inet_conf(index, &GUARD),
        link::set_no_own_ipv6(index),
        link::up(index),
        neigh::set_permanent(index, link.address, link.pod_mac),
        // Never "replace": an existing route is evidence that another pod has this address.
        route::add(&host_route(link.address, index, source)),
    ];
    let failed = |e| refused(Step::HostSide, e);
    let report = host.batch(&requests).map_err(failed)?;
    let mut done = without_ipv6(report, 1).ok();
    // The node has lost the source address a moment ago. The pod is reachable without it, and a repair adds it.
    if source.is_some() && matches!(&done, Err(e) if e.is(Errno::EINVAL)) {
        done = host.apply(&route::add(&host_route(link.address, index, None)));
    }
    match done {
        Err(e) if e.is(Errno::EEXIST) => Err(AddError::AddressInUse {
            address: link.address,
        }),
        other => other.map_err(failed),
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
fn undo(host: &mut Socket, wired: LinkIndices, error: AddError) -> AddError {
    let result = host.apply(&link::del(wired.host_index));
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

fn refused(step: Step, source: Error) -> AddError {
    AddError::Refused {
        step,
        source,
        left_behind: None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::netlink::Mac;
    use crate::testing::{netns, socket_in};

    /// On kernels that do not echo links, the lookup must return the same result.
    #[test]
    fn a_lookup_of_the_indices_agrees_with_the_echo() {
        let (host, pod) = (netns(), netns());
        let mut host = socket_in(&host);
        // Makes the index counters of the two namespaces differ.
        let spare = link::End {
            name: "spare",
            mtu: None,
            mac: None,
            group: 0,
            up: false,
        };
        let pair = link::add_veth(
            &spare,
            &link::End {
                name: "other",
                ..spare
            },
            None,
        );
        host.apply(&pair).unwrap();
        let link = PodLink {
            host_name: "eni0".to_owned(),
            pod_name: "eth0".to_owned(),
            address: [10, 0, 0, 5].into(),
            mtu: 1500,
            uplink: Uplink::Eni(nettypes::EniIndex::PRIMARY),
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        };
        let wired = try_pair(&mut host, pod.as_fd(), &link).unwrap();
        assert_ne!(wired.host_index, wired.pod_index);
        assert_eq!(ask_indices(&mut host, "eni0").unwrap(), wired);
    }
}
