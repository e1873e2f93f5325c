//! The reconciler: the desired state of the node's network, and the one socket that applies it.
//!
//! Owns the desired state of ENIs and of the pods' host sides. Every change is recorded here before its effect or together
//! with it, so a repair, which is the same diff as the first set-up, can never undo what was wanted. [`DirtySet`] says which
//! parts of the state may differ after a notification. It only decides what is looked at, never what is changed. May
//! use the rest of `host`, `pod` and `netlink`. Must not know why something is wanted.

mod desired;
mod dirty_set;
mod ports;
mod takeover;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};

use super::config::HostConfig;
use super::eni::{self, EniLink};
use super::error::{During, HostError};
use super::foreign::{self, Predecessor, Scene, Steered};
use super::monitor::Changes;
use super::{ipv6, node, rules, stale};
use crate::constants::{PROTOCOL, RULE_ENI_ADDRESS, is_egress};
use crate::netlink::route::{self, LOCAL};
use crate::netlink::rule::Rule;
use crate::netlink::{Error, Family, Kind, Mac, Socket, Tally};
use crate::nft::{Fingerprint, PortEntry, PortRules, Ruleset};
use crate::pod::{self, AddError, Drift, HostSide, PodLink, PodRef, Step, WiredPod, Wiring};
use crate::sockets;
use nettypes::EniIndex;

use desired::Desired;
pub use dirty_set::DirtySet;
use ports::Ports;
pub use takeover::find;

/// See the module. Belongs to one thread, which is in the namespace that it maintains.
#[derive(Debug)]
pub struct Reconciler {
    socket: Socket,
    desired: Desired,
    /// The ruleset that we wrote last, and the fingerprint that the kernel then had; `None` if it could not be read.
    left: Option<(Ruleset, Fingerprint)>,
    ports: Ports,
    /// The pods' addresses of the other family that the AWS VPC CNI's egress plugin serves, as of the last look.
    with_egress_cni: Option<BTreeSet<IpAddr>>,
}

/// The result of a repair.
#[derive(Debug, Default)]
pub struct Repaired {
    /// The number of changes, by kind.
    pub changed: Tally,
    /// What could not be corrected.
    pub failures: Vec<HostError>,
    /// MAC addresses of ENIs whose link has disappeared since the last repair. We cannot bring a link back.
    pub gone: Vec<Mac>,
    /// The same for ENIs that were removed before.
    pub detached: Vec<Mac>,
    /// The addresses that the host keeps from pods, if they were looked at; see [`Reconciler::claims`].
    pub claims: Option<Claims>,
}

/// The addresses that no pod should get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// Those that the kernel takes for the node's own: on any link, of any scope, secondary ones, broadcast addresses and
    /// whole networks included. The node would receive the pod's packets.
    pub own: BTreeSet<IpNet>,
    /// Those whose packets go where a rule of another program says.
    pub steered: Steered,
}

/// What a predecessor had left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Who.
    pub of: Predecessor,
    /// The object, as the usual tools print it.
    pub what: String,
}

impl Reconciler {
    /// Prepares the calling thread's namespace, as [`prepare`](super::prepare).
    ///
    /// # Errors
    /// As [`prepare`](super::prepare).
    pub fn take_over(mut socket: Socket, config: HostConfig) -> Result<Self, HostError> {
        stale::remove(&mut socket)?;
        let prepared = node::prepare(&mut socket, &config)?;
        let ports = Ports::new(node::nft(&socket)?, config.pods);
        let mut reconciler = Self {
            socket,
            ports,
            desired: Desired {
                config,
                primary: prepared.link.index,
                source: prepared.source,
                enis: BTreeMap::new(),
                pods: BTreeMap::new(),
                steering: BTreeSet::new(),
                removed: BTreeMap::new(),
                contested: BTreeSet::new(),
            },
            left: None,
            with_egress_cni: None,
        };
        reconciler.left = reconciler.look_at_nftables();
        Ok(reconciler)
    }

    /// The socket, for read requests.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// The netlink port of the socket that changes host ports.
    #[must_use]
    pub const fn ports_socket(&self) -> u32 {
        self.ports.socket_port()
    }

    /// As [`update_local`](super::update_local).
    ///
    /// # Errors
    /// As [`update_local`](super::update_local).
    pub fn update_local(&mut self, local: Vec<Ipv4Net>) -> Result<(), HostError> {
        let before = self.look_at_nftables();
        let was_left = before.is_some() && before == self.left;
        node::update_local(&mut self.socket, &mut self.desired.config, local)?;
        // If somebody had changed our tables before, they are not what we left: the next repair writes them again.
        self.left = was_left.then(|| self.look_at_nftables()).flatten();
        Ok(())
    }

    /// As [`add_eni`](super::add_eni), without waiting for the link.
    ///
    /// # Errors
    /// As [`add_eni`](super::add_eni).
    pub fn add_eni(&mut self, eni: EniLink) -> Result<(), HostError> {
        let marks = self.desired.config.egress.marks;
        let index = eni::add_eni(&mut self.socket, &eni, marks, Duration::ZERO)?;
        self.desired.removed.remove(&index);
        self.desired.enis.insert(eni.index, (eni, Some(index)));
        Ok(())
    }

    /// The same for an ENI whose link has its address already, as after a restart. Returns false for another one, without a list
    /// of all links.
    ///
    /// # Errors
    /// As [`add_eni`](super::add_eni).
    pub fn add_present_eni(&mut self, eni: EniLink) -> Result<bool, HostError> {
        let found = self.socket.link_with(eni.address.into());
        let found = found.during("find the ENI's link")?;
        if found.is_none_or(|link| link.mac != Some(eni.mac)) {
            return Ok(false);
        }
        self.add_eni(eni).map(|()| true)
    }

    /// As [`remove_eni`](super::remove_eni).
    ///
    /// # Errors
    /// As [`remove_eni`](super::remove_eni).
    pub fn remove_eni(&mut self, index: EniIndex, table: u32) -> Result<(), Vec<HostError>> {
        if let Some((eni, Some(link))) = self.desired.enis.remove(&index) {
            self.desired.removed.insert(link, eni.mac);
        }
        eni::remove_eni(&mut self.socket, table)
    }

    /// As [`pod::add`], and has the pod's host ports lead to it.
    ///
    /// # Errors
    /// As [`pod::add`]; [`AddError::PortInUse`].
    pub fn add_pod(
        &mut self,
        pod: &mut Socket,
        netns: BorrowedFd<'_>,
        link: &PodLink,
    ) -> Result<Wiring, AddError> {
        self.prepare_ports(link)?;
        let wired = pod::add(&mut self.socket, pod, netns, link, self.desired.source);
        match wired.and_then(|wired| self.add_ports(link, wired)) {
            Ok(wired) => {
                if wired.contested {
                    self.desired.contested.insert(link.host_name.clone());
                }
                self.keep_pod(WiredPod::of(link, wired.host_index));
                Ok(wired)
            }
            Err(error) => {
                // It may have taken the name from an older link before it failed.
                if self.desired.is_wanted(&link.host_name) {
                    drop(self.repair_pods());
                }
                Err(error)
            }
        }
    }

    /// What must be there before the link of a pod with host ports.
    fn prepare_ports(&mut self, link: &PodLink) -> Result<(), AddError> {
        let ports = &link.asked.ports;
        if ports.is_empty() {
            return Ok(());
        }
        let refused = |source| AddError::refused(Step::HostPorts, source);
        let used = sockets::in_use(ports, self.desired.config.pods).map_err(refused)?;
        if let Some((port, listener)) = used {
            return Err(AddError::PortInUse { port, listener });
        }
        let rules = self.port_rules();
        if self.ports.prepare(rules).map_err(refused)? {
            // For the addresses of services. What fails is repaired and reported by the next repair.
            drop(self.repair_ports());
        }
        Ok(())
    }

    /// The last step of an ADD: from now on, the ports lead to the pod.
    fn add_ports(&mut self, link: &PodLink, wired: Wiring) -> Result<Wiring, AddError> {
        let ports = &link.asked.ports;
        if ports.is_empty() {
            return Ok(wired);
        }
        let mut added = self.ports.add(link.address, ports);
        if added.is_err() {
            // The table may be gone, or have an element of no pod.
            drop(self.repair_ports());
            added = self.ports.add(link.address, ports);
        }
        added.map(|()| wired.clone()).map_err(|source| {
            let left = pod::unlink(&mut self.socket, wired.host_index);
            AddError::Refused {
                step: Step::HostPorts,
                source,
                left_behind: left.err(),
            }
        })
    }

    fn port_rules(&self) -> PortRules {
        let config = &self.desired.config;
        let mark = config.egress.marks.primary();
        PortRules {
            family: config.pods,
            primary: (config.pods == Family::V4).then_some((self.desired.primary, mark)),
        }
    }

    /// Has the ports of all pods lead to them, and no others to any pod.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses; a repetition does the rest.
    pub fn repair_ports(&mut self) -> Result<(), HostError> {
        let pods = self.desired.pods.values();
        let mut wanted: BTreeSet<_> = pods
            .flat_map(|pod| PortEntry::of(pod.address, &pod.asked.ports))
            .collect();
        if self.ports.is_there() || !wanted.is_empty() {
            let services = ports::services(&mut self.socket, self.desired.config.pods);
            wanted.extend(services.during("look at addresses of services")?);
        }
        let rules = self.port_rules();
        if self.ports.repair(rules, &wanted)? {
            self.socket.count(Kind::Nftables);
        }
        Ok(())
    }

    /// As [`pod::list`], with the host ports that lead to each.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn list_pods(&mut self) -> Result<Vec<HostSide>, Error> {
        let mut pods = pod::list(&mut self.socket)?;
        for entry in self.ports.present()? {
            let PortEntry::Port(port, to) = entry else {
                continue;
            };
            let found = pods.iter_mut().filter(|pod| pod.address == Some(to));
            found.for_each(|pod| pod.ports.push(port));
        }
        Ok(pods)
    }

    /// As [`pod::check`], with the pod's host ports.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn check_pod(
        &mut self,
        pod: &mut Socket,
        link: &PodLink,
        host_index: u32,
    ) -> Result<Vec<Drift>, Error> {
        let mut drift = pod::check(&mut self.socket, pod, link, host_index)?;
        let missing = self.ports.missing(link.address, &link.asked.ports)?;
        drift.extend(
            missing
                .into_iter()
                .map(|port| Drift::HostPortMissing { port }),
        );
        Ok(drift)
    }

    /// Adds a pod that a previous process wired to the desired state.
    pub fn keep_pod(&mut self, pod: WiredPod) {
        self.desired.pods.insert(pod.host_index, pod);
    }

    /// As [`pod::unroute`], after its host ports, and removes the pod from the desired state. Returns whether another link may get a new name when
    /// this pod's link is gone: then [`Reconciler::assign_names`] must follow.
    ///
    /// # Errors
    /// As [`pod::unroute`].
    pub fn remove_pod(&mut self, pod: &PodRef) -> (bool, Result<(), Error>) {
        let kept = self.desired.pods.remove(&pod.host_index);
        let contested = kept.is_some_and(|kept| self.desired.contested.contains(&kept.host_name));
        let closed = self.ports.remove(pod.address, &pod.ports);
        let unrouted = pod::unroute(&mut self.socket, pod);
        (contested, closed.and(unrouted))
    }

    /// Gives names of links that are gone to the pods that shall have them.
    pub fn assign_names(&mut self) {
        // What it could not do, the next repair tries again.
        drop(self.repair_pods());
    }

    /// Adds to `before` what `changes` may have altered.
    #[must_use]
    pub fn mark_dirty(&self, changes: &Changes, before: DirtySet) -> DirtySet {
        let mut dirty = before;
        dirty.nftables |= changes.nftables;
        for event in &changes.events {
            self.desired.mark_dirty(event, &mut dirty);
        }
        dirty
    }

    /// Compares the parts in `dirty` with the kernel and corrects what differs. What is right is not touched, so traffic is not
    /// disturbed.
    pub fn repair(&mut self, dirty: &DirtySet) -> Repaired {
        let before = self.socket.changed();
        let mut repaired = Repaired::default();
        if dirty.node {
            self.repair_node(&mut repaired);
        }
        if dirty.of_pods() {
            repaired.failures.extend(self.repair_ipv6_of_pods().err());
            repaired.failures.extend(self.repair_pods());
        }
        // Last: the rule and the table for a mark must be complete before any packet gets the mark.
        if dirty.nftables || dirty.node {
            repaired.failures.extend(self.repair_nftables().err());
        }
        // The node's addresses may be those of services.
        if dirty.nftables || dirty.node || dirty.local {
            repaired.failures.extend(self.repair_ports().err());
        }
        if dirty.local {
            // After the ENIs: their strays are gone by now.
            let claims = self.claims().during("look at the host's addresses");
            match claims {
                Ok(claims) => repaired.claims = Some(claims),
                Err(failure) => repaired.failures.push(failure),
            }
        }
        repaired.changed = self.socket.changed().since(before);
        repaired
    }

    /// Whether a link with one of these MAC addresses is there and is still not ours.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn has_unknown_links(&mut self, macs: &BTreeSet<Mac>) -> Result<bool, Error> {
        let links = self.socket.links()?;
        let mut present = links.iter().filter_map(|link| link.mac);
        Ok(present.any(|mac| macs.contains(&mac) && self.desired.is_unknown(mac)))
    }

    /// Those of `enis`, each given by its MAC address and its own address, that have a link.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn enis_with_link(&mut self, enis: &[(Mac, Ipv4Addr)]) -> Result<BTreeSet<Mac>, Error> {
        let wanted: BTreeSet<Mac> = enis.iter().map(|(mac, _)| *mac).collect();
        let own: BTreeSet<IpAddr> = enis.iter().map(|(_, own)| IpAddr::from(*own)).collect();
        let addresses = self.socket.addresses(Family::V4, None)?;
        let mut found = BTreeSet::new();
        for address in addresses.iter().filter(|has| own.contains(&has.address)) {
            let link = self.socket.link_by_index(address.index)?;
            found.extend(link.and_then(|link| link.mac));
        }
        if !found.is_superset(&wanted) {
            // The address of one may have been removed. Listing hundreds of links takes longer than all of this.
            let links = self.socket.links()?;
            found.extend(links.iter().filter_map(|link| link.mac));
        }
        Ok(&found & &wanted)
    }

    /// The addresses that no pod should get.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn claims(&mut self) -> Result<Claims, Error> {
        let mut own = BTreeSet::new();
        for family in [Family::V4, Family::V6] {
            let routes = self.socket.routes(family, Some(LOCAL))?;
            let pods_could_have = routes.iter().filter(|r| r.kind != route::Kind::Multicast);
            own.extend(pods_could_have.map(|r| r.dst));
        }
        let present = self.socket.rules(self.desired.config.pods)?;
        let tables = foreign::tables(&present);
        let mut routes = Vec::new();
        for table in &tables {
            routes.extend(self.socket.routes(self.desired.config.pods, Some(*table))?);
        }
        self.desired.steering = tables;
        let steered = foreign::steered(&present, &routes);
        Ok(Claims { own, steered })
    }

    /// The addresses for destinations of the other family that anybody has on this node: our pods, those that the AWS VPC
    /// CNI's `egress-cni` wired, and the node itself.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn egress_in_use(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        let other = self.desired.config.pods.other();
        let routes = self.socket.routes(other, None)?;
        let hosts = routes.iter().filter(|r| r.dst == IpNet::from(r.dst.addr()));
        let addresses = hosts.map(|r| r.dst.addr());
        Ok(addresses.filter(|a| is_egress(*a)).collect())
    }

    /// Removes the rules and nftables objects that predecessors left behind for certain. Those in `running` may still
    /// use theirs. To be called after [`Reconciler::take_over`], so that our own objects stand in for them.
    ///
    /// # Errors
    /// If the kernel cannot be queried or refuses; a repetition removes the rest.
    pub fn remove_leftovers(&mut self, running: &[Predecessor]) -> Result<Vec<Removed>, HostError> {
        let (family, marks) = (self.desired.config.pods, self.desired.config.egress.marks);
        let mut nft = node::nft(&self.socket)?;
        let has_chains = nft.has_aws_node();
        let has_chains = has_chains.during("look for chains of the AWS VPC CNI")?;
        if !has_chains && !Scene::has_traces(&mut self.socket, family, marks)? {
            return Ok(Vec::new());
        }
        let scene = Scene::of(&mut self.socket, family, marks)?;
        let mut vpc = self.desired.config.egress.local.clone();
        vpc.push(self.desired.config.primary.subnet);
        let mut removed = Vec::new();
        for of in [Predecessor::AwsNode, Predecessor::CiliumEni] {
            if running.contains(&of) {
                continue;
            }
            let wrong = scene.leftovers(of, &vpc);
            let shown = wrong.iter().map(|rule| format!("ip rule {rule}"));
            removed.extend(shown.map(|what| Removed { of, what }));
            let missing = Vec::new();
            rules::Diff { missing, wrong }.apply(&mut self.socket)?;
        }
        let of = Predecessor::AwsNode;
        if !running.contains(&of) && !scene.has_pods(of) {
            let what = "remove chains of the AWS VPC CNI";
            let objects = nft.remove_aws_node().during(what)?;
            removed.extend(objects.into_iter().map(|what| Removed { of, what }));
        }
        Ok(removed)
    }

    /// The addresses of ENIs that we configured on the host, as our rules show, also those of a previous process.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn eni_addresses(&mut self) -> Result<BTreeSet<IpAddr>, Error> {
        let present = self.socket.rules(Family::V4)?;
        let ours = present
            .iter()
            .filter(|rule| rule.protocol == PROTOCOL && rule.priority == RULE_ENI_ADDRESS);
        Ok(ours.filter_map(|rule| Some(rule.from?.addr())).collect())
    }

    /// The rules of other programs that decide by mark bits that are ours; see [`conflicts`](super::conflicts).
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn mark_conflicts(&mut self) -> Result<Vec<Rule>, Error> {
        let present = self.socket.rules(Family::V4)?;
        Ok(rules::conflicts(&present, self.desired.config.egress.marks))
    }

    fn repair_node(&mut self, repaired: &mut Repaired) {
        let failures = &mut repaired.failures;
        match node::ensure(&mut self.socket, &self.desired.config) {
            Ok(prepared) => {
                self.desired.primary = prepared.link.index;
                self.desired.source = prepared.source;
            }
            Err(failure) => failures.push(failure),
        }
        let links = match self.socket.links() {
            Ok(links) => links,
            Err(source) => {
                let what = "list links";
                return failures.push(HostError::Netlink { what, source });
            }
        };
        let exists = |index| links.iter().any(|link| link.index == index);
        let removed = &mut self.desired.removed;
        let detached = removed.extract_if(.., |index, _| !exists(*index));
        repaired.detached.extend(detached.map(|(_, mac)| mac));
        let marks = self.desired.config.egress.marks;
        for (eni, index) in self.desired.enis.values_mut() {
            let Some(link) = links.iter().find(|link| link.mac == Some(eni.mac)) else {
                repaired.gone.extend(index.take().map(|_| eni.mac));
                continue;
            };
            *index = Some(link.index);
            failures.extend(eni::ensure(&mut self.socket, eni, marks, link).err());
        }
    }

    fn repair_pods(&mut self) -> Option<HostError> {
        let pods = self.desired.pods.values();
        let repaired = pod::repair(&mut self.socket, pods, self.desired.source);
        self.desired.contested = repaired.contested;
        let what = "repair the pods' links";
        repaired
            .failure
            .map(|source| HostError::Netlink { what, source })
    }

    /// Must run before the other repairs of a pod: a link without IPv6 accepts no route.
    fn repair_ipv6_of_pods(&mut self) -> Result<(), HostError> {
        if !self.desired.config.uses_ipv6() {
            return Ok(());
        }
        let links = self.socket.links().during("list links")?;
        let pods = &self.desired.pods;
        let of_pods = links.iter().filter(|link| pods.contains_key(&link.index));
        for _ in 0..ipv6::ensure_pod_links(of_pods)? {
            self.socket.count(Kind::Setting);
        }
        Ok(())
    }

    /// Writes nothing if the kernel still has what we wrote last and the wanted ruleset has not changed.
    fn repair_nftables(&mut self) -> Result<(), HostError> {
        let wanted = self.ruleset()?;
        let mut nft = node::nft(&self.socket)?;
        let what = "read nftables";
        let found = nft.fingerprint().during(what)?;
        let as_left = |(made, left): &(Ruleset, Fingerprint)| *made == wanted && found == *left;
        if self.left.as_ref().is_some_and(as_left) {
            return Ok(());
        }
        nft.replace(&wanted).during("set up nftables again")?;
        self.socket.count(Kind::Nftables);
        self.left = Some((wanted, nft.fingerprint().during(what)?));
        Ok(())
    }

    fn ruleset(&self) -> Result<Ruleset, HostError> {
        node::ruleset(&self.desired.config, self.desired.primary)
    }

    /// What our tables have now. If reading fails, the next repair writes them again, which is harmless.
    fn look_at_nftables(&self) -> Option<(Ruleset, Fingerprint)> {
        let made = self.ruleset().ok()?;
        let fingerprint = node::nft(&self.socket).ok()?.fingerprint().ok()?;
        Some((made, fingerprint))
    }
}
