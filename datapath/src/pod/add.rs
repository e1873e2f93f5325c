//! ADD: three datagrams to the kernel, and their undoing.
//!
//! Owns the hot path. Everything is validated before the first change; after it, any failure takes everything back.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use netlink_packet_core::NlasIterator;
use tracing::debug;

use super::{PodLink, guard::GUARD, host_route};
use crate::constants::{GROUP_DYING, MAX_ENI_INDEX, gateway, index_of_group};
use crate::netlink::addr::{self, Address};
use crate::netlink::link;
use crate::netlink::{Errno, Error, Frame, Report, Socket, neigh, route};
use crate::netns::{Netns, NetnsId};

/// The parts of an ADD, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// The pair is made, each end in its namespace.
    Pair,
    /// The pod's end is up, addressed and routed.
    PodSide,
    /// The host knows the way to the pod.
    HostSide,
}

/// A pod's network as it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkIndices {
    /// Interface index of the host end, in the host's namespace.
    pub host_index: u32,
    /// Interface index of the pod's end, in the pod's namespace.
    pub pod_index: u32,
}

/// Why a pod could not be wired. Nothing of it is left, except where [`AddError::Refused`] says so.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The description cannot be wired by any kernel.
    #[error("invalid {field}: {value:?}")]
    Invalid {
        /// Which part of the description.
        field: &'static str,
        /// What it was.
        value: String,
    },
    /// The pod already has an interface of this name.
    #[error("interface {name} already exists in the pod's network namespace")]
    InterfaceExists {
        /// The pod's interface name.
        name: String,
    },
    /// The host end's name belongs to a link that is not one of ours.
    #[error("host link {name} already exists and is not a pod link")]
    HostNameTaken {
        /// The host end's name.
        name: String,
    },
    /// The host has a route to this address already: some other sandbox may be using it.
    #[error("address {address} is still routed to another pod")]
    AddressInUse {
        /// The address.
        address: IpAddr,
    },
    /// The descriptor is no network namespace (any more).
    #[error("the pod's network namespace no longer exists")]
    NamespaceGone,
    /// The socket was opened in another namespace than the one that was handed over with it.
    #[error("the pod's netlink socket belongs to namespace {socket:?} and not to {netns:?}")]
    NamespaceMismatch {
        /// Where the socket acts.
        socket: NetnsId,
        /// The pod's namespace.
        netns: NetnsId,
    },
    /// The kernel refused a step, or a socket failed in it.
    #[error("{step:?}{}", if left_behind.is_some() { ", and the host end could not be removed" } else { "" })]
    Refused {
        /// The step.
        step: Step,
        /// The kernel's reason.
        #[source]
        source: Error,
        /// Why the host end is still there, if it is.
        left_behind: Option<Error>,
    },
}

/// Wires a pod (design §4.1). `host` acts in the host's namespace, `pod` in the pod's, which `netns` refers to.
///
/// # Errors
/// [`AddError`]; whatever was made is unmade first.
pub fn add(
    host: &mut Socket,
    pod: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
) -> Result<LinkIndices, AddError> {
    add_observed(host, pod, netns, link, |_| {})
}

/// As [`add`]; `done` is called after each step, for a caller who measures them.
///
/// # Errors
/// As [`add`].
pub fn add_observed(
    host: &mut Socket,
    pod: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
    mut done: impl FnMut(Step),
) -> Result<LinkIndices, AddError> {
    validate(link)?;
    same_namespace(pod, netns)?;
    let pod_side = |e| refused(Step::PodSide, e);
    let wired = make_pair(host, netns, link)?;
    done(Step::Pair);
    wire_pod(pod, link, wired.pod_index).map_err(|e| undo(host, wired, pod_side(e)))?;
    done(Step::PodSide);
    wire_host(host, link, wired.host_index).map_err(|e| undo(host, wired, e))?;
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
    if link.index > MAX_ENI_INDEX {
        return invalid("ENI index", &link.index);
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

/// Interface indices are small numbers that every pod shares: through a socket of another pod, this one's address
/// would land on that one's interface.
fn same_namespace(pod: &Socket, netns: BorrowedFd<'_>) -> Result<(), AddError> {
    let socket = pod.netns_id().map_err(|e| refused(Step::PodSide, e))?;
    // A socket's namespace is one for certain, so what has its identity is one too; the full validation only has to
    // find words for what has not.
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

/// Step 1, repeated once when a half-made earlier attempt is in the way.
fn make_pair(
    host: &mut Socket,
    netns: BorrowedFd<'_>,
    link: &PodLink,
) -> Result<LinkIndices, AddError> {
    match try_pair(host, netns, link) {
        Err(e) if e.is(Errno::EEXIST) => {}
        other => return other.map_err(|e| pair_failed(host, link, e)),
    }
    // EEXIST does not say which of the two names was taken.
    let name = &link.host_name;
    let Some(holder) = host
        .link_by_name(name)
        .map_err(|e| refused(Step::Pair, e))?
    else {
        return Err(AddError::InterfaceExists {
            name: link.pod_name.clone(),
        });
    };
    // A link that a crash left in the group of the doomed is ours as well.
    let ours = index_of_group(holder.group).is_some() || holder.group == GROUP_DYING;
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

/// One `RTM_NEWLINK`, whose echo tells both indices: the host end's own, and in `IFLA_LINK` the other end's. No
/// look-up, no second request (65 µs for the link with all its attributes), and no guess at a free index (which the
/// kernel would let us dictate for both ends). Links are echoed from Linux 6.2 on; before, the host end is asked for.
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

/// What the echo would have told.
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

/// The kernel unmakes a pair that it refuses. When its answer was lost instead, the pair may be there.
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

/// Step 2, in the pod: the link, the address, the way out. The order matters: routes need the link up, the default
/// route needs its gateway reachable. The loopback is the runtime's.
///
/// The link has no carrier before the host end is up, and by then the kernel has been told to give it no link-local
/// address: nobody is there whom the pod could find by one. So it looks for no duplicate and asks for no router, which
/// every pod's start had the kernel's workers do.
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

/// A link without IPv6 (the kernel was started so, or an MTU below 1280) has no addresses of its own to be told off, and
/// says so to the request at `position`. That is well for a pod of IPv4; one of IPv6 fails at its address.
fn without_ipv6(mut report: Report, position: usize) -> Report {
    if let Some(result) = report.results.get_mut(position)
        && result.as_ref().is_err_and(|e| e.is(Errno::EAFNOSUPPORT))
    {
        *result = Ok(());
    }
    report
}

/// Step 3, on the host: the strict source check before the route, which is what makes the pod reachable.
///
/// The host end goes up here and not when it is made: up without a carrier, the kernel would look through all IPv6
/// routes of the host for some to take back (`rt6_sync_down_dev`), and there were three for each pod. A link-local
/// address would also make every link-local source of the pod's a legitimate one.
fn wire_host(host: &mut Socket, link: &PodLink, index: u32) -> Result<(), AddError> {
    let requests = [
        // Of a pod with an IPv6 address it keeps all IPv4 back: there is no way back to any such source.
        link::set_inet_conf(index, &GUARD),
        link::set_no_own_ipv6(index),
        link::up(index),
        neigh::set_permanent(index, link.address, link.pod_mac),
        // Never "replace": a route that is already there is evidence that another pod has this address.
        route::add(&host_route(link.address, index)),
    ];
    let failed = |e| refused(Step::HostSide, e);
    let report = host.batch(&requests).map_err(failed)?;
    match without_ipv6(report, 1).ok() {
        Err(e) if e.is(Errno::EEXIST) => Err(AddError::AddressInUse {
            address: link.address,
        }),
        other => other.map_err(failed),
    }
}

/// The pod's end was up before its peer, so its carrier came late, and until the kernel's link watch gets round to it
/// every packet of the pod is dropped: a busy node loses a new pod's first packets. Reading a link makes the kernel catch
/// up (Linux 6.8, `rtnl_getlink` in net/core/rtnetlink.c); before that it changes nothing.
fn open_queue(pod: &mut Socket, index: u32) -> Result<(), Error> {
    pod.batch(&[link::get(index)])?.ok()
}

/// The inverse of all three steps is one: with the host end go its peer and every address, route and neighbour on
/// either, including those that the failing step still made.
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

    /// On kernels that echo no links the question must have the same answer.
    #[test]
    fn asking_for_the_indices_tells_what_the_echo_tells() {
        let (host, pod) = (netns(), netns());
        let mut host = socket_in(&host);
        // Set the two namespaces' counters apart.
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
            index: 0,
            host_mac: Mac([2, 0, 0, 0, 0, 1]),
            pod_mac: Mac([2, 0, 0, 0, 0, 2]),
        };
        let wired = try_pair(&mut host, pod.as_fd(), &link).unwrap();
        assert_ne!(wired.host_index, wired.pod_index);
        assert_eq!(ask_indices(&mut host, "eni0").unwrap(), wired);
    }
}
