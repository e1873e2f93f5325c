//! Renaming of host ends: the youngest sandbox of a pod has the pod's name, older ones have names of their own.
//!
//! Linux renames a link that is up from 6.2 on, and refuses with `EBUSY` before. A link that no packet uses any more is then
//! set down first. A link in use keeps its name until it must change, and is down for the time between two requests of
//! one datagram.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tracing::{debug, warn};

use super::super::name::{own_name, prefix_of};
use super::super::wired_pod::WiredPod;
use crate::constants::{GROUP_DYING, PODS_TABLE};
use crate::netlink::link::{self, Change, Link};
use crate::netlink::{Errno, Error, Family, Request, Socket};
use crate::uplink::Uplink;
use std::net::IpAddr;

/// Whether the link is a pod's host end, or one that is being deleted.
pub(in crate::pod) fn is_pod_link(link: &Link) -> bool {
    let ours = Uplink::of_group(link.group).is_some() || link.group == GROUP_DYING;
    link.kind.as_deref() == Some("veth") && ours
}

/// Gives the pod link `holder` a name of its own, so that its name is free. A link that has disappeared is a success.
///
/// # Errors
/// The kernel's refusal: the link is in use, and the kernel renames only links that are down.
pub(in crate::pod) fn displace(host: &mut Socket, holder: &Link) -> Result<(), Error> {
    let prefix = prefix_of(&holder.name);
    let name = match &holder.alias {
        Some(owner) => own_name(prefix, owner),
        None => own_name(prefix, &format!("link {}", holder.index)),
    };
    let renamed = match host.apply(&rename(holder.index, &name)) {
        Err(e) if is_busy(&e) && !is_routed(host, holder.index)? => host
            .batch(&[down(holder.index), rename(holder.index, &name)])?
            .ok(),
        other => other,
    };
    match renamed {
        Err(e) if e.is_gone() => Ok(()),
        other => other,
    }
}

/// Gives each name to the youngest of the pods that shall have it, and returns the names that must be looked at again:
/// several pods shall have it, or it could not be given.
pub(in crate::pod) fn assign_names<'a>(
    host: &mut Socket,
    pods: impl Iterator<Item = &'a WiredPod>,
    links: &HashMap<u32, Link>,
    source: Option<IpAddr>,
) -> BTreeSet<String> {
    let standing = pods.filter(|pod| links.contains_key(&pod.host_index));
    let (youngest, mut contested) = youngest_by_name(standing);
    let mut holders: HashMap<String, u32> = links
        .values()
        .map(|link| (link.name.clone(), link.index))
        .collect();
    for pod in youngest.values() {
        let name = &pod.host_name;
        let holder = holders.get(name).and_then(|index| links.get(index));
        if holder.is_some_and(|holder| holder.index == pod.host_index) {
            continue;
        }
        match give_name(host, pod, &links[&pod.host_index], holder, source) {
            Ok(true) => {
                holders.retain(|_, index| *index != pod.host_index);
                holders.insert(name.clone(), pod.host_index);
            }
            Ok(false) => drop(contested.insert(name.clone())),
            Err(error) => {
                warn!(name, %error, "could not give a pod's link its name");
                contested.insert(name.clone());
            }
        }
    }
    contested
}

/// By name, the youngest pod that shall have it; and the names that several shall have.
fn youngest_by_name<'a>(
    pods: impl Iterator<Item = &'a WiredPod>,
) -> (BTreeMap<&'a str, &'a WiredPod>, BTreeSet<String>) {
    let mut youngest = BTreeMap::<&str, &WiredPod>::new();
    let mut contested = BTreeSet::new();
    for pod in pods {
        let found = youngest.entry(&pod.host_name).or_insert(pod);
        if found.host_index != pod.host_index {
            contested.insert(pod.host_name.clone());
        }
        // The kernel only increments indices.
        if found.host_index < pod.host_index {
            *found = pod;
        }
    }
    (youngest, contested)
}

/// Renames `end`, the link of `pod`, after the link that has its name now. False if that one is not a pod's.
fn give_name(
    host: &mut Socket,
    pod: &WiredPod,
    end: &Link,
    holder: Option<&Link>,
    source: Option<IpAddr>,
) -> Result<bool, Error> {
    let name = &pod.host_name;
    if let Some(holder) = holder {
        if !is_pod_link(holder) {
            return Ok(false);
        }
        displace(host, holder)?;
    }
    debug!(from = end.name, to = name, "renaming a pod's link");
    match host.apply(&rename(end.index, name)) {
        Err(e) if is_busy(&e) => within_one_datagram(host, pod, end, source)?,
        Err(e) if e.is_gone() => {}
        other => other?,
    }
    Ok(true)
}

/// Sets the link down, renames it, and sets it up with everything that it lost. The kernel handles a datagram inside the call
/// that sends it, so no packet waits long.
pub(in crate::pod) fn within_one_datagram(
    host: &mut Socket,
    pod: &WiredPod,
    end: &Link,
    source: Option<IpAddr>,
) -> Result<(), Error> {
    let mut requests = vec![down(end.index), rename(end.index, &pod.host_name)];
    requests.extend(pod.set_up_again(end, source));
    host.batch(&requests)?.ok()
}

/// Also if the refusal is the socket's and not in an answer.
fn is_busy(error: &Error) -> bool {
    error.errno() == Some(Errno::EBUSY)
}

/// Whether packets for a pod go over this link.
fn is_routed(host: &mut Socket, index: u32) -> Result<bool, Error> {
    for family in [Family::V4, Family::V6] {
        if !host.routes_over(family, PODS_TABLE, index)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn rename(index: u32, name: &str) -> Request {
    let change = Change {
        name: Some(name),
        ..Change::default()
    };
    link::set(index, &change)
}

fn down(index: u32) -> Request {
    let change = Change {
        up: Some(false),
        ..Change::default()
    };
    link::set(index, &change)
}
