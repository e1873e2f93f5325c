//! What is left when every pod is deleted: the kernel's objects, the daemon's addresses, EC2's ledger, files. An idle
//! node holds its ENIs, its target of free addresses, and nothing else.

use std::{
    collections::BTreeSet,
    fs, io,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use datapath::{
    constants::PODS_TABLE,
    netlink::{self, Family, Socket},
};
use vpc_sim::ids::InstanceId;

use super::{
    TARGET,
    shared_state::{SharedState, Site, now},
};
use crate::{Lab, node::inspect::inspect};

/// Waits until nothing is left over; returns how long that took. Everything left at the limit is a violation.
pub(super) fn settle(lab: &Lab, sites: &[Site], shared: &SharedState, limit: Duration) -> Duration {
    let begun = now();
    loop {
        let left = all_left(lab, sites, shared, begun);
        if left.is_empty() {
            return begun.elapsed();
        }
        if begun.elapsed() >= limit {
            for line in left {
                shared.violation(format!("left over: {line}"));
            }
            return begun.elapsed();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn all_left(lab: &Lab, sites: &[Site], shared: &SharedState, begun: Instant) -> Vec<String> {
    let ever = shared.ever();
    let mut left = Vec::new();
    for site in sites {
        let looked = left_on(lab, site, &ever);
        let error = |e: io::Error| {
            vec![format!(
                "cannot inspect the node after {:?}: {e}",
                begun.elapsed()
            )]
        };
        let lines = looked.unwrap_or_else(error);
        left.extend(
            lines
                .into_iter()
                .map(|line| format!("node {}: {line}", site.number)),
        );
    }
    left.extend(stray_enis(lab));
    left
}

/// One line for each object on a node that should not exist.
fn left_on(lab: &Lab, site: &Site, ever: &BTreeSet<IpAddr>) -> io::Result<Vec<String>> {
    let mut left = site
        .netns
        .run(|| in_kernel(ever))?
        .map_err(io::Error::other)?;
    left.extend(in_pool(lab, site)?);
    let tombstones = proto::tombstone::directory(&site.socket);
    for directory in [&site.sandboxes, &tombstones] {
        match fs::read_dir(directory) {
            Ok(entries) => left.extend(entries.flatten().map(|e| format!("file {:?}", e.path()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    left.extend(set_aside(&site.node().state_file()));
    Ok(left)
}

/// State files that a start could not use: a kill must never cause one.
fn set_aside(state: &Path) -> Vec<String> {
    const WHY: [&str; 4] = ["corrupt", "version", "boot", "fatal"];
    let aside = WHY.map(|why| state.with_extension(why));
    let there = aside.iter().filter(|path| path.exists());
    there.map(|path| format!("file {path:?}")).collect()
}

fn in_kernel(ever: &BTreeSet<IpAddr>) -> Result<Vec<String>, netlink::Error> {
    let mut socket = Socket::open()?;
    let links = socket.links()?.into_iter();
    let links = links.filter(|link| link.name.starts_with("eni"));
    let mut left: Vec<String> = links.map(|link| format!("link {}", link.name)).collect();
    let routes = socket.routes(Family::V4, Some(PODS_TABLE))?.into_iter();
    left.extend(routes.map(|route| format!("route {route:?}")));
    // An address that a pod had may be an ENI's own now: its entry is then for the ENI, and never permanent.
    let neighbours = socket.neighbours(Family::V4, None)?.into_iter();
    let pods = neighbours.filter(|n| n.permanent && ever.iter().any(|pod| n.address == *pod));
    left.extend(pods.map(|neighbour| format!("neighbour {neighbour:?}")));
    Ok(left)
}

/// Addresses in a temporary state, too many free ones, and any on which the daemon and EC2 disagree.
fn in_pool(lab: &Lab, site: &Site) -> io::Result<Vec<String>> {
    let snapshot = inspect(&site.socket)?;
    let addresses = || snapshot.enis.iter().flat_map(|eni| &eni.addresses);
    let busy = addresses().filter(|address| address.state != "free");
    let mut left: Vec<String> = busy
        .map(|a| format!("address {:?} is {}", ipv4(&a.address), a.state))
        .collect();
    let free = addresses()
        .filter(|address| address.state == "free")
        .count();
    if free != TARGET {
        left.push(format!("{free} free addresses, not {TARGET}"));
    }
    let primaries = snapshot.enis.iter().filter_map(|eni| ipv4(&eni.primary));
    let ours: BTreeSet<_> = addresses()
        .filter_map(|a| ipv4(&a.address))
        .chain(primaries)
        .collect();
    let theirs = ledger(lab, &site.node().instance.id);
    for address in ours.symmetric_difference(&theirs) {
        let who = if ours.contains(address) {
            "the daemon"
        } else {
            "EC2"
        };
        left.push(format!("address {address}: only {who} has it"));
    }
    Ok(left)
}

/// Every address that EC2 has assigned to the instance.
fn ledger(lab: &Lab, instance: &InstanceId) -> BTreeSet<IpAddr> {
    let world = lab.sim.world();
    let attached = world.interfaces().filter(|eni| {
        let attachment = eni.attachment.as_ref();
        attachment.is_some_and(|attachment| attachment.instance == *instance)
    });
    attached
        .flat_map(|eni| eni.ipv4.iter().copied().map(IpAddr::V4))
        .collect()
}

/// ENIs that do not belong to any instance.
fn stray_enis(lab: &Lab) -> Vec<String> {
    let world = lab.sim.world();
    let stray = world.interfaces().filter(|eni| eni.attachment.is_none());
    stray
        .map(|eni| format!("ENI {} is attached to nothing", eni.id))
        .collect()
}

fn ipv4(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from)
}
