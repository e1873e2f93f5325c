//! The repair of all pods: names first, then what differs on the host's side of each.
//!
//! May use the rest of `pod` and `netlink`. Must not know why something differs.

pub(super) mod adopt;
pub(super) mod rename;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use super::wired_pod::WiredPod;
use crate::constants::PODS_TABLE;
use crate::netlink::link::Link;
use crate::netlink::neigh::Neighbour;
use crate::netlink::qdisc::Qdisc;
use crate::netlink::route::Route;
use crate::netlink::{Error, Family, Socket};

/// The kernel's state of all pods, by the index of their link.
struct Observed {
    links: HashMap<u32, Link>,
    routes: HashMap<u32, Vec<Route>>,
    neighbours: HashMap<u32, Vec<Neighbour>>,
    /// Empty if no pod asks for a rate.
    qdiscs: HashMap<u32, Qdisc>,
}

impl Observed {
    fn of(host: &mut Socket, shaped: bool) -> Result<Self, Error> {
        let mut observed = Self {
            links: HashMap::new(),
            routes: HashMap::new(),
            neighbours: HashMap::new(),
            qdiscs: HashMap::new(),
        };
        if shaped {
            let each = host.qdiscs()?.into_iter();
            observed.qdiscs = each.map(|root| (root.index, root)).collect();
        }
        for link in host.links()? {
            observed.links.insert(link.index, link);
        }
        for family in [Family::V4, Family::V6] {
            for route in host.routes(family, Some(PODS_TABLE))? {
                let over = route.oif.unwrap_or_default();
                observed.routes.entry(over).or_default().push(route);
            }
            for neighbour in host.neighbours(family, None)? {
                let on = observed.neighbours.entry(neighbour.index).or_default();
                on.push(neighbour);
            }
        }
        Ok(observed)
    }
}

/// The result of a repair.
#[derive(Debug, Default)]
pub struct PodsRepaired {
    /// Names of host ends that several pods shall have, or that could not be given to the one that shall have it.
    pub contested: BTreeSet<String>,
    /// The kernel could not be queried, or the first refusal; the other pods are corrected anyway.
    pub failure: Option<Error>,
}

/// Compares the host's side of all `pods` with the kernel and corrects what differs. Pods whose link is gone are skipped.
/// `source`: as for [`add`](super::add).
pub fn repair<'a>(
    host: &mut Socket,
    pods: impl Iterator<Item = &'a WiredPod> + Clone,
    source: Option<IpAddr>,
) -> PodsRepaired {
    let mut repaired = PodsRepaired::default();
    let shaped = pods.clone().any(|pod| pod.ingress_bucket().is_some());
    let observed = match Observed::of(host, shaped) {
        Ok(observed) => observed,
        Err(failure) => {
            repaired.failure = Some(failure);
            return repaired;
        }
    };
    repaired.contested = rename::assign_names(host, pods.clone(), &observed.links, source);
    let mut requests = Vec::new();
    for pod in pods {
        let Some(end) = observed.links.get(&pod.host_index) else {
            continue;
        };
        let routes = observed
            .routes
            .get(&end.index)
            .map_or(&[][..], Vec::as_slice);
        let on = observed.neighbours.get(&end.index);
        let mut drift = pod.drift(end, routes, on.map_or(&[][..], Vec::as_slice), source);
        drift.extend(pod.shape_drift(observed.qdiscs.get(&end.index)));
        requests.extend(pod.remedy(end, &drift, source));
    }
    repaired.failure = match host.batch(&requests) {
        // A link that disappeared between reading and correcting belonged to a pod that has ended.
        Ok(report) => {
            let mut refused = report.results.into_iter().filter_map(Result::err);
            refused.find(|e| !e.is_gone())
        }
        Err(failure) => Some(failure),
    };
    repaired
}
