//! The daemon's handle for the node's network. One thread owns the netlink socket that changes the host, so the host's
//! state has one writer. Removing links waits for the kernel, so it has its own thread and delays no ADD.
//!
//! May use the rest of `host`, `config`, `node`, `runtime`, `state` and `telemetry`. Must not know EC2 or the pool.

mod adoption;

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    sync::Arc,
    time::Duration,
};

use datapath::{
    constants::eni_table,
    host::{
        self, Changes, Claims, DirtySet, EniLink, HostConfig, HostMonitor, Predecessor, Reconciler,
        Removed, Repaired,
    },
    netlink::{self, Socket},
    netns::{Netns, NetnsError, NetnsId},
    nft::Egress,
    pod::{self, AddError, HostSide, PodLink, PodRef, WiredPod, Wiring},
    uplink::Uplink,
};
use ipnet::{IpNet, Ipv4Net};
use nettypes::{Family, Mac};
use planner::{Class, EniIndex, Failure, HostClaim, Mono, command::ConfigureEni};
use proto::{error_chain::chain, handover::Handed};

use crate::{
    config,
    host::{
        conntrack::{ConntrackError, StaleConnections},
        link_reaper::Reaper,
        names,
        seam::{EniHost, Live, PodHost, WireError},
    },
    node::identity::Identity,
    runtime::worker::{Gone, Worker},
    state::{store::Record, unknown::is_unknown},
    telemetry::metrics::Metrics,
};

/// The time limit for the link of an attached ENI to appear. EC2 may take about ten seconds.
const LINK_LIMIT: Duration = Duration::from_secs(60);

/// The link of an attached ENI did not appear.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no link with its MAC appeared within {} s", LINK_LIMIT.as_secs())]
struct NoLink;

/// Why the node's network could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the node's network could not be prepared")]
    Host(#[from] host::HostError),
    #[error("the daemon's own network namespace could not be opened")]
    Netns(#[from] NetnsError),
    #[error("no netlink socket could be opened")]
    Socket(#[from] netlink::Error),
    #[error("no thread could be started")]
    Thread(#[from] std::io::Error),
    #[error("connection tracking could not be opened")]
    StaleConnections(#[from] ConntrackError),
}

/// See the module. Cloning gives another handle on the same threads.
#[derive(Clone, Debug)]
pub struct HostNet {
    writer: Worker<Reconciler>,
    reaper: Reaper,
    stale_connections: StaleConnections,
    own: NetnsId,
    eni_mtu: u32,
}

impl HostNet {
    /// Opens the sockets in the namespace of the calling thread and prepares the node (rules, sysctls, nft table). Removes
    /// what predecessors left, except those that are `running`. Later changes by others are in the notifications.
    ///
    /// # Errors
    /// The kernel's error, with the object.
    pub fn start(
        me: &Identity,
        family: Family,
        network: &config::Network,
        egress: Egress,
        running: &[Predecessor],
        metrics: Arc<Metrics>,
    ) -> Result<(Self, HostMonitor), StartError> {
        let own = Netns::current()?.id();
        let (socket, reaping) = (Socket::open()?, Socket::open()?);
        let other_family = egress.other_family.is_some();
        let mut monitor =
            HostMonitor::open(family, other_family, &[socket.port(), reaping.port()])?;
        let settings = HostConfig {
            primary: EniLink {
                mac: me.mac,
                address: me.address,
                subnet: me.subnet_cidr,
                table: eni_table(0, 0),
                index: EniIndex::PRIMARY,
                mtu: network.eni_mtu,
            },
            egress,
            block_metadata: network.block_pod_imds,
            pods: family,
        };
        let mut reconciler = Reconciler::take_over(socket, settings)?;
        monitor.ignore_nftables(reconciler.ports_socket());
        remove_leftovers(&mut reconciler, running);
        let host = Self {
            writer: Worker::start("datapath", reconciler)?,
            reaper: Reaper::start(reaping, metrics)?,
            stale_connections: StaleConnections::start(family)?,
            own,
            eni_mtu: network.eni_mtu,
        };
        Ok((host, monitor))
    }

    /// Waits until the thread that changes the host's network has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + use<> {
        self.writer.ended()
    }

    /// The connections of deleted pods.
    #[must_use]
    pub const fn stale_connections(&self) -> &StaleConnections {
        &self.stale_connections
    }

    /// Manages these pods, which a previous process wired.
    pub async fn keep(&self, pods: &[Live]) {
        for Live { record, .. } in pods {
            // A daemon that was killed may have left connections from before the pod had the port.
            let ports = &record.asked.ports;
            self.stale_connections.opened(ports, record.address);
        }
        let pods: Vec<WiredPod> = pods.iter().map(wired_pod_of).collect();
        let kept = self.writer.run(move |host| {
            pods.into_iter().for_each(|pod| host.keep_pod(pod));
            // What fails is repaired and reported by the drift repair.
            drop(host.repair_ports());
        });
        // If the writer has ended, the daemon ends too.
        kept.await.unwrap_or_default();
    }

    /// What is in doubt after this news, in addition to `before`.
    pub async fn mark_dirty(&self, changes: Changes, before: DirtySet) -> DirtySet {
        let dirty = self
            .writer
            .run(move |host| host.mark_dirty(&changes, before))
            .await;
        dirty.unwrap_or_default()
    }

    /// Checks what is in doubt, and repairs differences.
    pub async fn repair(&self, dirty: DirtySet) -> Repaired {
        let repaired = self.writer.run(move |host| host.repair(&dirty)).await;
        repaired.unwrap_or_default()
    }

    /// Whether a link with one of these MAC addresses exists and is still unknown.
    pub async fn has_unknown_links(&self, macs: BTreeSet<Mac>) -> bool {
        let found = self
            .writer
            .run(move |host| host.has_unknown_links(&macs))
            .await;
        matches!(found, Ok(Ok(true)))
    }

    /// All addresses that the host keeps from pods.
    ///
    /// # Errors
    /// [`WireError`] if the kernel could not be queried.
    pub async fn claims(&self) -> Result<Vec<(IpNet, HostClaim)>, WireError> {
        let claims = self.writer.run(Reconciler::claims).await?;
        Ok(claims_of(claims.map_err(|e| WireError::Kernel(e.into()))?))
    }

    /// The addresses of ENIs that this or a previous process configured on the host.
    ///
    /// # Errors
    /// [`WireError`] if the kernel could not be queried.
    pub async fn eni_addresses(&self) -> Result<BTreeSet<IpAddr>, WireError> {
        let configured = self.writer.run(Reconciler::eni_addresses).await?;
        configured.map_err(|e| WireError::Kernel(e.into()))
    }

    /// Logs a warning for each rule of another program that decides by mark bits that are ours.
    pub async fn warn_of_mark_conflicts(&self) {
        let Ok(Ok(rules)) = self.writer.run(Reconciler::mark_conflicts).await else {
            return;
        };
        for rule in rules {
            let (mark, mask) = rule.mark.unwrap_or_default();
            tracing::warn!(
                priority = rule.priority,
                mark = format!("{mark:#x}/{mask:#x}"),
                table = rule.table,
                "a rule of another program uses the mark bits of pods: set HAWSER_ENI_MARK_MASK or \
                 AWS_VPC_K8S_CNI_CONNMARK to other bits"
            );
        }
    }

    /// The addresses for destinations of the other family that anybody has on this node.
    ///
    /// # Errors
    /// [`WireError`] if the kernel could not be queried.
    pub async fn egress_in_use(&self) -> Result<BTreeSet<IpAddr>, WireError> {
        let in_use = self.writer.run(Reconciler::egress_in_use).await?;
        in_use.map_err(|e| WireError::Kernel(e.into()))
    }

    /// Those of `enis`, each given by its MAC address and its own address, that have a link.
    ///
    /// # Errors
    /// [`WireError`] if the kernel could not be queried.
    pub async fn enis_with_link(
        &self,
        enis: Vec<(Mac, Ipv4Addr)>,
    ) -> Result<BTreeSet<Mac>, WireError> {
        let look = move |host: &mut Reconciler| host.enis_with_link(&enis);
        let found = self.writer.run(look).await?;
        found.map_err(|e| WireError::Kernel(e.into()))
    }

    /// Changes which destinations see pods' own addresses.
    ///
    /// # Errors
    /// [`WireError::Kernel`]. The destinations are unchanged.
    pub async fn update_local(&self, local: Vec<Ipv4Net>) -> Result<(), WireError> {
        self.writer
            .run(|host| host.update_local(local))
            .await?
            .map_err(|e| WireError::Kernel(e.into()))
    }

    fn eni_link(&self, eni: &ConfigureEni) -> EniLink {
        EniLink {
            mac: eni.mac,
            address: eni.primary,
            subnet: eni.subnet_cidr,
            table: eni_table(eni.card.into(), eni.device.into()),
            index: eni.index,
            mtu: self.eni_mtu,
        }
    }
}

impl EniHost for HostNet {
    // The wait does not block the writer: a link that never appears delays nothing else.
    async fn configure(&self, eni: ConfigureEni) -> Result<(), Failure> {
        if eni.index == EniIndex::PRIMARY {
            return Ok(());
        }
        let link = self.eni_link(&eni);
        // Nearly every ENI of a daemon that starts again has its link and its address, and there may be fifteen.
        let present = link.clone();
        let added = self.writer.run(move |host| host.add_present_eni(present));
        if let Ok(Ok(true)) = added.await {
            return Ok(());
        }
        let (mac, address) = (link.mac, link.address);
        let wait =
            move || netlink::wait_for_link_by_mac(&mut Socket::open()?, mac, address, LINK_LIMIT);
        match tokio::task::spawn_blocking(wait).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => return Err(failure(&eni, &NoLink)),
            Ok(Err(error)) => return Err(failure(&eni, &error)),
            Err(_) => return Err(failure(&eni, &Gone)),
        }
        let done = self.writer.run(move |host| host.add_eni(link)).await;
        match done {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure(&eni, &error)),
            Err(error) => Err(failure(&eni, &error)),
        }
    }

    async fn deconfigure(&self, eni: ConfigureEni) -> Result<(), Failure> {
        if eni.index == EniIndex::PRIMARY {
            return Ok(());
        }
        let table = self.eni_link(&eni).table;
        match self
            .writer
            .run(move |host| host.remove_eni(eni.index, table))
            .await
        {
            Ok(Ok(())) => Ok(()),
            Ok(Err(errors)) => {
                let all: Vec<String> = errors.iter().map(|error| chain(error)).collect();
                Err(failure(&eni, &std::io::Error::other(all.join("; "))))
            }
            Err(error) => Err(failure(&eni, &error)),
        }
    }
}

impl PodHost for HostNet {
    async fn wire(&self, link: PodLink, handed: Handed) -> Result<Wiring, WireError> {
        for address in [link.address].into_iter().chain(link.egress) {
            self.stale_connections.settle(address).await;
        }
        let own = self.own;
        let (ports, address) = (link.asked.ports.clone(), link.address);
        let wired = self
            .writer
            .run(move |host| {
                let (netns, mut pod) = enter(handed, own)?;
                host.add_pod(&mut pod, netns.as_fd(), &link)
                    .map_err(|error| match error {
                        AddError::InterfaceExists { name } => WireError::InterfaceExists(name),
                        AddError::AddressInUse { address } => WireError::AddressInUse(address),
                        AddError::HostNameTaken { name } => WireError::NameTaken(name),
                        used @ AddError::PortInUse { .. } => WireError::PortInUse(used.to_string()),
                        gone @ AddError::NamespaceGone => WireError::Netns(gone.into()),
                        other => WireError::Kernel(other.into()),
                    })
            })
            .await??;
        self.stale_connections.opened(&ports, address);
        Ok(wired)
    }

    async fn unwire(
        &self,
        pod: PodRef,
    ) -> (
        Result<(), WireError>,
        impl Future<Output = ()> + Send + use<> + 'static,
    ) {
        let (address, host_index) = (pod.address, pod.host_index);
        let ports = pod.ports.clone();
        let removed = self.writer.run(move |host| host.remove_pod(&pod));
        let (contested, unrouted) = match removed.await {
            Ok((contested, done)) => {
                self.stale_connections.closed(&ports, address);
                (contested, done.map_err(|e| WireError::Kernel(e.into())))
            }
            Err(gone) => (false, Err(gone.into())),
        };
        if let Err(error) = &unrouted {
            tracing::error!(
                %address,
                error = chain(error),
                "could not remove a pod's host ports or its route"
            );
        }
        let removed = self.reaper.remove(host_index);
        let writer = contested.then(|| self.writer.clone());
        let removal = async move {
            removed.await;
            if let Some(writer) = writer {
                // If the writer has ended, the daemon ends too.
                let settled = writer.run(Reconciler::assign_names).await;
                settled.unwrap_or_default();
            }
        };
        (unrouted, removal)
    }

    fn remove_link(&self, host_index: u32) -> impl Future<Output = ()> + Send + use<> + 'static {
        self.reaper.remove(host_index)
    }

    async fn name_of(&self, host_index: u32) -> Option<String> {
        let look = move |host: &mut Reconciler| host.socket().link_by_index(host_index);
        let found = self.writer.run(look).await.ok()?;
        found.ok()?.map(|link| link.name)
    }

    async fn check(
        &self,
        link: PodLink,
        host_index: u32,
        handed: Handed,
    ) -> Result<Vec<String>, WireError> {
        let own = self.own;
        self.writer
            .run(move |host| {
                let (_netns, mut pod) = enter(handed, own)?;
                let drifts = host
                    .check_pod(&mut pod, &link, host_index)
                    .map_err(|e| WireError::Kernel(e.into()))?;
                Ok(drifts.iter().map(ToString::to_string).collect())
            })
            .await?
    }

    async fn forget_attachment(&self, link: PodLink, handed: Handed) {
        let own = self.own;
        let address = link.address;
        let forgotten = self.writer.run(move |_| -> Result<(), WireError> {
            let (_netns, mut pod) = enter(handed, own)?;
            let forgotten = pod::forget_attachment(&mut pod, &link);
            forgotten.map_err(|e| WireError::Kernel(e.into()))
        });
        if let Ok(Err(error)) = forgotten.await {
            let error = chain(&error);
            tracing::warn!(%address, error, "a deleted attachment left a rule in its pod");
        }
    }

    fn left(&self, address: IpAddr, until: Mono) {
        self.stale_connections().left(address, until);
    }

    async fn list(&self) -> Result<Vec<HostSide>, WireError> {
        self.writer
            .run(|host| host.list_pods().map_err(|e| WireError::Kernel(e.into())))
            .await?
    }
}

/// What the planner must know of it. An address of the node itself comes first: a rule does not matter then.
#[must_use]
pub fn claims_of(claims: Claims) -> Vec<(IpNet, HostClaim)> {
    let own = claims.own.into_iter().map(|net| (net, HostClaim::Own));
    let steered = claims.steered.into_iter();
    let steered = steered.map(|(net, priority)| (net, HostClaim::Rule { priority }));
    own.chain(steered).collect()
}

/// Removes what predecessors left. What cannot be removed stays, and its addresses are kept from pods.
fn remove_leftovers(reconciler: &mut Reconciler, running: &[Predecessor]) {
    match reconciler.remove_leftovers(running) {
        Ok(removed) => {
            for Removed { of, what } in removed {
                tracing::warn!(
                    of = of.name(),
                    what,
                    "removed what a predecessor left behind"
                );
            }
        }
        Err(error) => tracing::warn!(
            error = chain(&error),
            "could not remove what a predecessor left behind"
        ),
    }
}

/// The data to remove a pod.
#[must_use]
pub fn ref_of(pod: &Live) -> PodRef {
    PodRef {
        host_index: pod.host_index,
        address: pod.record.address,
        egress: pod.record.egress,
        ports: pod.record.asked.ports.clone(),
    }
}

/// The link of a record. `None` for a pod that was adopted without a record: not all of its link is known.
#[must_use]
pub fn link_of(record: &Record) -> Option<PodLink> {
    Some(PodLink {
        host_name: record.host_name.clone(),
        owner: names::owner(&record.sandbox),
        pod_name: record.sandbox.ifname.clone(),
        address: record.address,
        mtu: record.mtu?,
        uplink: Uplink::Eni(record.index),
        host_mac: record.host_mac?,
        pod_mac: record.pod_mac?,
        secondary: record.secondary,
        asked: record.asked.clone(),
        egress: record.egress,
    })
}

/// The desired host side of a record's pod. The link of an unknown sandbox has no owner.
fn wired_pod_of(pod: &Live) -> WiredPod {
    let record = &pod.record;
    WiredPod {
        host_index: pod.host_index,
        host_name: record.host_name.clone(),
        owner: (!is_unknown(&record.sandbox)).then(|| names::owner(&record.sandbox)),
        address: record.address,
        uplink: Uplink::Eni(record.index),
        mtu: record.mtu,
        host_mac: record.host_mac,
        pod_mac: record.pod_mac,
        asked: record.asked.clone(),
        egress: record.egress,
    }
}

/// Checks the descriptors from the socket: it must be a network namespace, and not the host's own. `pod::add` checks
/// that the netlink socket belongs to it.
fn enter(handed: Handed, own: NetnsId) -> Result<(Netns, Socket), WireError> {
    let netns = Netns::from_fd(handed.netns).map_err(|e| WireError::Netns(e.into()))?;
    if netns.id() == own {
        return Err(WireError::Netns("it is the host's own".into()));
    }
    let socket = Socket::from_fd(handed.netlink).map_err(|e| WireError::Kernel(e.into()))?;
    Ok((netns, socket))
}

fn failure(eni: &ConfigureEni, error: &dyn std::error::Error) -> Failure {
    Failure {
        class: Class::Host,
        message: format!(
            "could not set up {} ({}): {}",
            eni.eni,
            eni.mac,
            chain(error)
        ),
        remedy: "see the daemon's log, and find out what keeps the interface's link from the node"
            .to_owned(),
    }
}
