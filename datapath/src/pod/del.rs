//! DEL, in two phases: first the address becomes unreachable, then, possibly after the reply, the link is removed.
//!
//! A missing object is always a success, no error stops the remaining steps, and nothing here needs the pod's
//! namespace. Links are identified by index: a name may belong to the pod's next sandbox by then. (The kernel only
//! increments indices, so an outdated index never refers to another link.)

use std::net::IpAddr;

use nettypes::HostPort;

use super::pod_link::host_route;
use crate::constants::GROUP_DYING;
use crate::netlink::link::{self, Change};
use crate::netlink::route;
use crate::netlink::{Error, Socket};

/// The data that is needed to remove a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// Interface index of the host end.
    pub host_index: u32,
    /// The pod's address.
    pub address: IpAddr,
    /// Its address of the other family, if it has one.
    pub egress: Option<IpAddr>,
    /// The host ports that lead to it.
    pub ports: Vec<HostPort>,
}

/// Phase one: removes the host's routes to the pod. Only routes over the pod's own link are removed, so that a late
/// repetition cannot disconnect the next pod with this address.
///
/// # Errors
/// Any failure except "no such link" and "no such route".
pub fn unroute(host: &mut Socket, pod: &PodRef) -> Result<(), Error> {
    let addresses = [pod.address].into_iter().chain(pod.egress);
    let requests = addresses.map(|a| route::del(&host_route(a, pod.host_index, None)));
    let report = host.batch(&requests.collect::<Vec<_>>())?;
    report.results.into_iter().try_for_each(gone_ok)
}

/// Phase two: removes the pair. Takes an RCU grace period.
///
/// # Errors
/// Any failure except "no such link".
pub fn unlink(host: &mut Socket, host_index: u32) -> Result<(), Error> {
    gone_ok(host.apply(&link::del(host_index)))
}

/// Phase two for several pods, in one grace period for all: each link is moved to the group for deletion, and the
/// kernel deletes the whole group. (Deleting one by one waits once per link.) If a crash happens in between, any later
/// call deletes the remaining links.
///
/// # Errors
/// Every failure, in no particular order. The other links are removed.
pub fn unlink_many(host: &mut Socket, host_indices: &[u32]) -> Result<(), Vec<Error>> {
    let doom = Change {
        group: Some(GROUP_DYING),
        ..Change::default()
    };
    let requests: Vec<_> = host_indices
        .iter()
        .map(|index| link::set(*index, &doom))
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
