//! Taking pods over from a predecessor: each is adopted beside what it has, and when all are, that is removed.
//!
//! Every step is done only if it is not done yet, so a process that dies here is continued by the next one.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::error::{During, HostError};
use super::super::foreign::{ForeignPod, Predecessor, Scene};
use super::super::{node, rules};
use super::Reconciler;
use crate::constants::{EGRESS_V4, EGRESS_V6, PROTOCOL, RULE_ENI_ADDRESS};
use crate::filter::{self, LegacyError, OfLegacy};
use crate::marks::Marks;
use crate::netlink::route::MAIN;
use crate::netlink::rule::Rule;
use crate::netlink::{Errno, Error, Family, Socket, route, rule};
use crate::nft::{AWS_NODE_CHAINS, AWS_NODE_COMMENTS};
use crate::pod::{self, WiredPod};

impl Reconciler {
    /// The pods of `of` that live, with what the kernel tells about each without entering it.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn foreign_pods(&mut self, of: Predecessor) -> Result<Vec<ForeignPod>, HostError> {
        let (family, marks) = (self.desired.config.pods, self.desired.config.egress.marks);
        find(&mut self.socket, family, marks, of)
    }

    /// Makes the link of a predecessor's pod Hawser's, beside the rules that it has. Returns whether the link is still there.
    ///
    /// # Errors
    /// The kernel's error. The pod is as it was.
    pub fn adopt_pod(&mut self, pod: WiredPod) -> Result<bool, HostError> {
        let what = "adopt a pod";
        let source = self.desired.source;
        let index = pod.host_index;
        self.keep_pod(pod.clone());
        let adopted = self
            .repair_ipv6_of_pods()
            .and_then(|()| pod::adopt(&mut self.socket, &pod, source).during(what));
        if !matches!(adopted, Ok(true)) {
            self.desired.pods.remove(&index);
        }
        adopted
    }

    /// Removes what `of` had for pods that are Hawser's now: first its chains in nftables, which would change the marks of
    /// packets, then each pod's rules and route, one pod at a time. Returns each object as text.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses. A repetition removes the rest.
    pub fn remove_traces(&mut self, of: Predecessor) -> Result<Vec<String>, HostError> {
        let what = "remove what a predecessor had for pods";
        let mut removed = Vec::new();
        if of == Predecessor::AwsNode {
            let mut nft = node::nft(&self.socket)?;
            removed.extend(nft.remove_aws_node().during(what)?);
        }
        let (family, marks) = (self.desired.config.pods, self.desired.config.egress.marks);
        let scene = Scene::of(&mut self.socket, family, marks)?;
        let pods = self.desired.pods.values();
        let pods: Vec<_> = pods.map(|pod| (pod.address, pod.host_index)).collect();
        let traces = scene.traces(of, &pods);
        for (of_pod, routes) in &traces.pods {
            let mut requests: Vec<_> = of_pod.iter().map(rule::del).collect();
            // Last: while there is a rule to main, main must have the route.
            requests.extend(routes.iter().map(route::del));
            self.socket
                .batch(&requests)
                .and_then(rules::all_gone)
                .during(what)?;
            removed.extend(of_pod.iter().map(|rule| format!("ip rule {rule}")));
            let shown = routes.iter().map(|r| format!("ip route {}", r.dst));
            removed.extend(shown);
        }
        let requests: Vec<_> = traces.node.iter().map(rule::del).collect();
        self.socket
            .batch(&requests)
            .and_then(rules::all_gone)
            .during(what)?;
        removed.extend(traces.node.iter().map(|rule| format!("ip rule {rule}")));
        self.own_rules_of_enis(&scene.rules)?;
        Ok(removed)
    }

    /// Removes the AWS VPC CNI's chains from tables of the older iptables, and returns each object as text.
    ///
    /// # Errors
    /// If the lock of iptables is not there, or if the kernel refuses. What is left does the same as our own chains.
    pub fn remove_legacy_chains(&mut self) -> Result<Vec<String>, LegacyError> {
        let wanted = OfLegacy {
            chains: &AWS_NODE_CHAINS,
            comments: &AWS_NODE_COMMENTS,
        };
        let mut removed = filter::remove_legacy(Family::V4, &wanted)?;
        removed.extend(filter::remove_legacy(Family::V6, &wanted)?);
        Ok(removed)
    }

    /// Removes what the AWS VPC CNI's egress plugin made in nftables for pods that have ended since the last call, and returns
    /// their addresses of the other family. A pod's route in main ends with the pod.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses. A repetition removes the rest.
    pub fn release_egress_cni(&mut self) -> Result<Vec<IpAddr>, HostError> {
        let what = "remove chains of pods that have ended";
        let (family, within) = match self.desired.config.pods {
            Family::V4 => (Family::V6, IpNet::from(EGRESS_V6)),
            Family::V6 => (Family::V4, IpNet::from(EGRESS_V4)),
        };
        let routes = self.socket.routes(family, Some(MAIN)).during(what)?;
        let of_pods = routes.iter().filter(|route| {
            let whole = route.dst.prefix_len() == route.dst.max_prefix_len();
            whole && route.protocol != PROTOCOL && within.contains(&route.dst.addr())
        });
        let alive: BTreeSet<IpAddr> = of_pods.map(|route| route.dst.addr()).collect();
        let known = self.with_egress_cni.as_ref();
        // The rules of a node can be many, so they are read only if a pod has ended.
        if known.is_some_and(|known| known.is_subset(&alive)) {
            self.with_egress_cni = Some(alive);
            return Ok(Vec::new());
        }
        let released = node::nft(&self.socket)?
            .remove_egress_cni(&alive)
            .during(what)?;
        self.with_egress_cni = Some(alive);
        Ok(released)
    }

    /// The rule for an ENI's own address is the same in both programs, and the kernel has it only once: it becomes ours, so that
    /// it ends with the ENI.
    fn own_rules_of_enis(&mut self, present: &[Rule]) -> Result<(), HostError> {
        let enis = self.desired.enis.values();
        let rules: Vec<_> = enis
            .map(|(eni, _)| Rule::from(RULE_ENI_ADDRESS, eni.address, eni.table))
            .collect();
        for ours in rules {
            let foreign = |r: &&Rule| r.same(&ours) && r.protocol != PROTOCOL;
            let Some(theirs) = present.iter().find(foreign) else {
                continue;
            };
            let requests = [rule::del(theirs), rule::add(&ours)];
            self.socket
                .batch(&requests)
                .and_then(rules::all_gone)
                .during("take over the rule for an ENI's address")?;
        }
        Ok(())
    }
}

/// The pods of `of` in the namespace of `socket`, without a reconciler: for a look that changes nothing.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn find(
    socket: &mut Socket,
    family: Family,
    marks: Marks,
    of: Predecessor,
) -> Result<Vec<ForeignPod>, HostError> {
    if !Scene::has_traces(socket, family, marks)? {
        return Ok(Vec::new());
    }
    let scene = Scene::of(socket, family, marks)?;
    let what = "look at a predecessor's pods";
    let programs = socket.links_with_programs().during(what)?;
    let mut pods = scene.pods(of);
    for pod in &mut pods {
        pod.filtered = programs.contains(&pod.link.index);
        look_inside(socket, pod, family).during(what)?;
    }
    Ok(pods)
}

/// What the pod's own end has. A kernel that does not tell costs the fixed neighbour entry, and the check of the address: the pod
/// is found by ARP as before.
fn look_inside(socket: &mut Socket, pod: &mut ForeignPod, family: Family) -> Result<(), Error> {
    let peer = if_allowed(socket.peer_of(&pod.link))?;
    pod.pod_mac = peer.and_then(|peer| peer.mac);
    let inside = if_allowed(socket.peer_addresses(&pod.link, family))?;
    pod.inside = inside.unwrap_or_default();
    pod.inside.retain(|address| !is_link_local(*address));
    Ok(())
}

fn if_allowed<T>(told: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match told {
        Err(error) if error.is(Errno::EPERM) => Ok(None),
        other => other,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}
