//! DEL, in two phases: first the address becomes unreachable, then, possibly after the reply, the link is removed.
//!
//! A missing object is always a success, no error stops the remaining steps, and nothing here needs the pod's
//! namespace.

use std::net::IpAddr;

use super::pod_link::host_route;
use crate::constants::GROUP_DYING;
use crate::netlink::link::{self, Change};
use crate::netlink::route;
use crate::netlink::{Error, Socket};

/// The data that is needed to remove a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Name of the host end.
    pub host_name: String,
    /// The pod's address.
    pub address: IpAddr,
}

/// Phase one: removes the host's route to the pod. Only a route over the pod's own link is removed, so that a late
/// repetition cannot disconnect the next pod with this address.
///
/// # Errors
/// Any failure except "no such link" and "no such route".
pub fn unroute(host: &mut Socket, pod: &PodRef) -> Result<(), Error> {
    // Without the link, there is no route over it either.
    let Some(link) = host.link_by_name(&pod.host_name)? else {
        return Ok(());
    };
    unroute_over(host, pod.address, link.index)
}

/// As [`unroute`], if the index of the host end is known: the lookup, with all attributes of a link, took twice as long
/// as the rest. The kernel only increments indices, so an outdated index never refers to another link.
///
/// # Errors
/// As [`unroute`].
pub fn unroute_over(host: &mut Socket, address: IpAddr, host_index: u32) -> Result<(), Error> {
    gone_ok(host.apply(&route::del(&host_route(address, host_index, None))))
}

/// Phase two: removes the pair. Takes an RCU grace period.
///
/// # Errors
/// Any failure except "no such link".
pub fn unlink(host: &mut Socket, host_name: &str) -> Result<(), Error> {
    gone_ok(host.apply(&link::del_by_name(host_name)))
}

/// Phase two for several pods, in one grace period for all: each link is moved to the group for deletion, and the
/// kernel deletes the whole group. (Deleting by name waits once per link.) If a crash happens in between, any later
/// call deletes the remaining links.
///
/// # Errors
/// Every failure, in no particular order. The other links are removed.
pub fn unlink_many(host: &mut Socket, host_names: &[&str]) -> Result<(), Vec<Error>> {
    let doom = Change {
        group: Some(GROUP_DYING),
        ..Change::default()
    };
    let requests: Vec<_> = host_names
        .iter()
        .map(|name| link::set_by_name(name, &doom))
        .collect();
    let mut errors = match host.batch(&requests) {
        Ok(report) => report
            .results
            .into_iter()
            .filter_map(|r| gone_ok(r).err())
            .collect(),
        Err(e) => vec![e],
    };
    errors.extend(gone_ok(host.apply(&link::del_group(GROUP_DYING))).err());
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

fn gone_ok(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is_gone() => Ok(()),
        other => other,
    }
}
