//! DEL, in two phases: first the address becomes unreachable, then, possibly after the reply, the link goes.
//!
//! Absence is success everywhere, nothing stops at the first error, and nothing here needs the pod's namespace.

use std::net::IpAddr;

use super::host_route;
use crate::constants::GROUP_DYING;
use crate::netlink::link::{self, Change};
use crate::netlink::route;
use crate::netlink::{Error, Socket};

/// What must be known of a pod to take it down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Name of the host end.
    pub host_name: String,
    /// The pod's address.
    pub address: IpAddr,
}

/// Phase one: removes the host's route to the pod. Only a route over the pod's own link is touched, so that a late
/// repetition cannot cut off the next owner of the address.
///
/// # Errors
/// Anything but "no such link" and "no such route".
pub fn unroute(host: &mut Socket, pod: &PodRef) -> Result<(), Error> {
    // Without the link there is no route over it either.
    let Some(link) = host.link_by_name(&pod.host_name)? else {
        return Ok(());
    };
    unroute_over(host, pod.address, link.index)
}

/// As [`unroute`], where the index of the host end is known: the look-up, with all of a link's attributes, took twice as
/// long as the rest. The kernel counts indices up, so one that is out of date names no other link.
///
/// # Errors
/// As [`unroute`].
pub fn unroute_over(host: &mut Socket, address: IpAddr, host_index: u32) -> Result<(), Error> {
    gone_ok(host.apply(&route::del(&host_route(address, host_index))))
}

/// Phase two: removes the pair. Takes an RCU grace period.
///
/// # Errors
/// Anything but "no such link".
pub fn unlink(host: &mut Socket, host_name: &str) -> Result<(), Error> {
    gone_ok(host.apply(&link::del_by_name(host_name)))
}

/// Phase two for several pods, in one grace period for all: each link is moved to a group of the doomed, and the
/// kernel deletes that group as a whole. (Deleting by name waits once for each.) A crash in between leaves links that
/// any later call takes along.
///
/// # Errors
/// Every failure, in no particular order; the other links are gone all the same.
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
