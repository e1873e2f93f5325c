//! The verbs as transactions: address, kernel and durable record change together or not at all.
//!
//! The order is guaranteed. ADD: address reserved → network wired → record durable → address assigned → answered; a
//! failure undoes everything before it. DEL: address unreachable → record freed → address cooling → answered; the link
//! itself is removed after the answer. There is one operation at a time per sandbox; different sandboxes never wait for
//! each other here.
//!
//! May use the rest of `sandbox`, `pool`, `state`, `host`, `config`, `runtime` and `telemetry`. Must not know EC2 or
//! how a request arrived.

mod removal;
mod reserve;
mod sweep;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use datapath::{pod::PodLink, uplink::Uplink};
use nettypes::{Asked, HostPort};
use planner::{Event, Family, Mac, Mono, Obstacle, Pod, Sandbox};
use proto::{
    error_chain::chain,
    handover::Handed,
    names::{FORMER_NETWORK, NETWORK},
    refusal::Refusal,
    v1::Reason,
};

use super::{
    early_del::EarlyDels,
    egress_leases::{EgressLeases, Lease},
    keyed_lock::KeyedLock,
    port_book::{PortBook, PortClaim},
};
use crate::{
    config,
    host::{
        hostnet::{HostNet, link_of, ref_of},
        names,
        seam::{Live, PodHost, WireError},
    },
    pool::driver::{Grant, Granted, Pool},
    runtime::{
        supervise::Detached,
        worker::{Gone, Worker},
    },
    sandbox::refusals,
    state::store::{Record, Store, StoreError},
    telemetry::recorder::Recorder,
};

/// An ADD request, already validated.
#[derive(Debug)]
pub struct Add {
    pub sandbox: Sandbox,
    pub pod: Pod,
    /// An answer after this time is useless.
    pub deadline: Mono,
    pub veth_prefix: Option<String>,
    pub mtu: Option<u32>,
    pub asked: Asked,
    pub handed: Handed,
}

/// What a pod has besides its address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// What it asked for.
    pub asked: Asked,
    /// The address by which it reaches destinations of the other family, if it has one.
    pub egress: Option<IpAddr>,
}

/// Every sandbox of this node. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Sandboxes<H = HostNet> {
    shared: Arc<Shared<H>>,
}

#[derive(Debug)]
struct Shared<H> {
    pool: Pool,
    host: H,
    store: Worker<Store>,
    network: config::Network,
    cooldown: Duration,
    recorder: Recorder,
    detached: Detached,
    locks: KeyedLock,
    /// Changed only by the holder of the sandbox's guard.
    ports: Mutex<PortBook>,
    early_dels: Mutex<EarlyDels>,
    /// Of pods.
    family: Family,
    egress: EgressLeases,
    /// The contents of the store, and where their links are. Changed only by the holder of the sandbox's guard.
    live: Mutex<BTreeMap<Sandbox, Live>>,
}

impl<H> Shared<H> {
    /// Records a stage that started then and ends now; returns now, when the next one starts.
    fn staged(
        &self,
        sandbox: &Sandbox,
        verb: &'static str,
        stage: &'static str,
        begun: Mono,
    ) -> Mono {
        let now = self.pool.now();
        self.recorder.stage(verb, stage, sandbox, begun, now);
        now
    }

    /// Records the wait for an address by its outcome and by its cause; for a refusal, the cause is its reason.
    fn waited(
        &self,
        sandbox: &Sandbox,
        asked: Result<Granted, Refusal>,
        since: Mono,
    ) -> Result<Granted, Refusal> {
        let (outcome, reason) = match &asked {
            Ok(Granted::New(grant)) => ("granted", grant.waited_for.map_or("warm", Obstacle::name)),
            Ok(Granted::Again { .. }) => ("granted", "warm"),
            Err(refusal) => (refusal.reason.as_str_name(), refusal.reason.as_str_name()),
        };
        let now = self.staged(sandbox, "add", "address", since);
        self.recorder.waited(outcome, reason, now.since(since));
        asked
    }
}

impl<H: PodHost> Sandboxes<H> {
    #[must_use]
    pub fn new(
        pool: Pool,
        host: H,
        store: Worker<Store>,
        live: Vec<Live>,
        config: &config::Config,
        recorder: Recorder,
        detached: Detached,
    ) -> Self {
        let other = config.pool.family.other();
        let other = config.egress.other_family.then_some(other);
        let held = live.iter().filter_map(|pod| pod.record.egress);
        let egress = EgressLeases::new(other, held);
        let mut ports = PortBook::default();
        for Live { record, .. } in &live {
            ports.keep(&record.sandbox, &record.pod, &record.asked.ports);
        }
        let live = live
            .into_iter()
            .map(|pod| (pod.record.sandbox.clone(), pod))
            .collect();
        Self {
            shared: Arc::new(Shared {
                pool,
                host,
                store,
                network: config.network.clone(),
                cooldown: config.pool.cooldown,
                recorder,
                detached,
                locks: KeyedLock::default(),
                ports: Mutex::new(ports),
                early_dels: Mutex::default(),
                family: config.pool.family,
                egress,
                live: Mutex::new(live),
            }),
        }
    }

    /// Assigns an address and wires the sandbox. If the sandbox is already wired, returns the same result again. The name of
    /// the host end in the result is the present one.
    ///
    /// # Errors
    /// A refusal. Nothing of the attempt remains.
    pub async fn add(&self, request: Add) -> Result<Record, Refusal> {
        let shared = &self.shared;
        let begun = shared.pool.now();
        shared.recorder.spans.pod(&request.sandbox, &request.pod);
        let mut guard = shared.locks.lock(&request.sandbox).await;
        let asked_at = shared.staged(&request.sandbox, "add", "turn", begun);
        if shared
            .early_dels
            .lock()
            .expect("no holder panics")
            .contains(&request.sandbox, shared.pool.now())
        {
            return Err(refusals::deleted(&request.sandbox));
        }
        match self.live(&request.sandbox) {
            // A previous ADD of this sandbox whose record was lost: its interface is in the pod.
            None => drop(self.take_down_unknown(&request.sandbox).await?),
            Some(adopted) if adopted.record.is_adopted() => {
                self.take_down(adopted, guard).await?;
                // Ends with the link.
                guard = shared.locks.lock(&request.sandbox).await;
            }
            Some(_) => {}
        }
        let lease = self.lease_egress(&request.sandbox)?;
        let (sandbox, ports) = (&request.sandbox, &request.asked.ports);
        let claim = self.claim_ports(sandbox, &request.pod, ports)?;
        let asked = shared.pool.add(
            request.sandbox.clone(),
            request.pod.clone(),
            request.deadline,
        );
        let granted = tokio::select! {
            granted = asked => shared.waited(&request.sandbox, granted.map_err(refusals::of_pool), asked_at)?,
            // The runtime has given up the sandbox. Dropping `asked` returns the address if it was already assigned.
            () = guard.cancelled() => return Err(refusals::deleted(&request.sandbox)),
        };
        let Granted::New(grant) = granted else {
            return self.again(&request.sandbox).await;
        };
        let egress = lease.as_ref().and_then(Lease::address);
        let (link, record) = self.plan(&request, grant, egress);
        match self.wire_and_record(link, record, request.handed).await {
            Ok((pod, host_name)) => {
                // Otherwise it ends here: the pod has no place for it.
                if let Some(lease) = lease.filter(|_| pod.record.egress.is_some()) {
                    lease.keep();
                }
                // As a whole: what is left of it would borrow the request.
                claim.into_iter().for_each(PortClaim::keep);
                let record = Record {
                    host_name,
                    ..pod.record.clone()
                };
                let sandbox = request.sandbox.clone();
                shared
                    .live
                    .lock()
                    .expect("no holder panics")
                    .insert(request.sandbox, pod);
                shared.pool.tell(Event::Wired { sandbox }).await;
                Ok(record)
            }
            Err((refusal, what_became_of_it)) => {
                shared.pool.tell(what_became_of_it).await;
                Err(refusal)
            }
        }
    }

    /// How many addresses of the other family are in use.
    #[must_use]
    pub fn egress_in_use(&self) -> usize {
        self.shared.egress.in_use()
    }

    /// How many host ports are in use.
    #[must_use]
    pub fn ports_in_use(&self) -> usize {
        self.shared.ports.lock().expect("no holder panics").in_use()
    }

    /// An address of the other family for a new sandbox, if pods have one.
    fn lease_egress(&self, sandbox: &Sandbox) -> Result<Option<Lease>, Refusal> {
        match self.live(sandbox) {
            Some(_) => Ok(None),
            None => {
                let leased = self.shared.egress.lease();
                leased.map_err(|_full| refusals::no_egress_address(self.shared.family))
            }
        }
    }

    /// Reserves the host ports of a new sandbox until the result is dropped, and longer if it is kept.
    fn claim_ports<'a>(
        &'a self,
        sandbox: &'a Sandbox,
        pod: &Pod,
        ports: &'a [HostPort],
    ) -> Result<Option<PortClaim<'a>>, Refusal> {
        if ports.is_empty() || self.live(sandbox).is_some() {
            return Ok(None);
        }
        let family = self.shared.family;
        let foreign = |port: &&HostPort| port.address.is_some_and(|a| Family::of(a) != family);
        if let Some(port) = ports.iter().find(foreign) {
            return Err(refusals::foreign_host_ip(port, family));
        }
        PortClaim::new(&self.shared.ports, sandbox, pod, ports)
            .map(Some)
            .map_err(|taken| refusals::port_of_another(&taken.0, &taken.1))
    }

    /// The result of a previous ADD.
    async fn again(&self, sandbox: &Sandbox) -> Result<Record, Refusal> {
        let pod = self
            .live(sandbox)
            .ok_or_else(|| refusals::no_record(sandbox))?;
        // If the name cannot be read, the link is gone, and the sandbox with it.
        let name = self.shared.host.name_of(pod.host_index).await;
        let record = pod.record;
        Ok(Record {
            host_name: name.unwrap_or_else(|| record.host_name.clone()),
            ..record
        })
    }

    fn plan(&self, request: &Add, grant: Grant, egress: Option<IpAddr>) -> (PodLink, Record) {
        let sandbox = &request.sandbox;
        let prefix = request
            .veth_prefix
            .as_deref()
            .unwrap_or(&self.shared.network.veth_prefix);
        let link = PodLink {
            host_name: names::host_name(prefix, sandbox, &request.pod),
            owner: names::owner(sandbox),
            pod_name: sandbox.ifname.clone(),
            address: grant.address,
            mtu: request.mtu.unwrap_or(self.shared.network.pod_mtu),
            uplink: Uplink::Eni(grant.index),
            host_mac: mac(sandbox, "host"),
            pod_mac: mac(sandbox, "pod"),
            // Until the kernel says otherwise.
            secondary: false,
            asked: request.asked.clone(),
            egress,
        };
        let record = Record {
            sandbox: sandbox.clone(),
            pod: request.pod.clone(),
            address: grant.address,
            eni: grant.eni,
            index: grant.index,
            host_name: link.host_name.clone(),
            host_mac: Some(link.host_mac),
            pod_mac: Some(link.pod_mac),
            mtu: Some(link.mtu),
            secondary: link.secondary,
            asked: link.asked.clone(),
            egress,
        };
        (link, record)
    }

    /// Kernel and record at once, each on its own thread: neither is trusted without the other. A crash leaves a link
    /// without a record, or a record without a link, and the next start removes either before anything is served.
    ///
    /// Returns the pod, and the present name of its host end. A failure contains what the pool must know about the address:
    /// no other host has seen it, so it is free, unless the kernel still routes it to another pod. Then it must go into
    /// cooldown and not be assigned again immediately.
    async fn wire_and_record(
        &self,
        link: PodLink,
        record: Record,
        handed: Handed,
    ) -> Result<(Live, String), (Refusal, Event)> {
        let shared = &self.shared;
        let sandbox = record.sandbox.clone();
        let begun = shared.pool.now();
        let wiring = async {
            let wired = shared.host.wire(link.clone(), handed).await;
            (wired, shared.staged(&record.sandbox, "add", "wire", begun))
        };
        let put = record.clone();
        let writing = async { shared.store.run(move |store| store.put(&put)).await };
        // The kernel takes longer, so it starts first.
        let ((wired, at), mut written) = tokio::join!(biased; wiring, writing);
        match wired {
            Ok(wired) => {
                let mut pod = Live {
                    record,
                    host_index: wired.host_index,
                };
                // The kernel knew better what the pod has a place for.
                let differs = wired.secondary || wired.egress != pod.record.egress;
                if differs && matches!(written, Ok(Ok(()))) {
                    pod.record.secondary = wired.secondary;
                    pod.record.egress = wired.egress;
                    let put = pod.record.clone();
                    written = shared.store.run(move |store| store.put(&put)).await;
                }
                shared.staged(&sandbox, "add", "commit", at);
                if let Ok(Ok(())) = written {
                    return Ok((pod, wired.host_name));
                }
                shared.host.unwire(ref_of(&pod)).await.1.await;
                Err((store_failed(written), Event::Unwired { sandbox }))
            }
            Err(error) => {
                shared.staged(&sandbox, "add", "commit", at);
                if let Ok(Ok(())) = written {
                    self.forget(record).await;
                }
                let event = match error {
                    WireError::AddressInUse(address) if address == link.address => {
                        Event::Left { sandbox }
                    }
                    _ => Event::Unwired { sandbox },
                };
                Err((refusals::of_wiring(&link, &error), event))
            }
        }
    }

    /// For a pod that the kernel refused. If this fails, the record stays until the next start, which finds no link for
    /// it.
    async fn forget(&self, record: Record) {
        let forget = move |store: &mut Store| store.forget(&record);
        if let Ok(Err(error)) = self.shared.store.run(forget).await {
            let error = chain(&error);
            tracing::error!(
                error,
                "could not delete the record of a pod that was not wired"
            );
        }
    }

    /// Compares record and kernel with the result of ADD.
    ///
    /// # Errors
    /// Unknown sandbox, or all differences.
    pub async fn check(
        &self,
        sandbox: &Sandbox,
        address: Option<IpAddr>,
        handed: Handed,
    ) -> Result<(), Refusal> {
        let sandbox = &self.known_as(sandbox);
        let _guard = self.shared.locks.lock(sandbox).await;
        let Live { record, host_index } = self
            .live(sandbox)
            .ok_or_else(|| refusals::no_record(sandbox))?;
        if let Some(claimed) = address.filter(|claimed| *claimed != record.address) {
            return Err(refusals::drift(
                sandbox,
                &format!(
                    "prevResult has {claimed}, the record has {}",
                    record.address
                ),
            ));
        }
        let wiring = link_of(&record).ok_or_else(|| refusals::no_record(sandbox))?;
        let host = &self.shared.host;
        match host.check(wiring.clone(), host_index, handed).await {
            Ok(drifts) if drifts.is_empty() => Ok(()),
            Ok(drifts) => Err(refusals::drift(sandbox, &drifts.join("; "))),
            Err(error) => Err(refusals::of_wiring(&wiring, &error)),
        }
    }

    /// What pods have besides their address, of those that have anything.
    #[must_use]
    pub fn extras(&self) -> BTreeMap<Sandbox, Extras> {
        let live = self.shared.live.lock().expect("no holder panics");
        let extras = live.iter().map(|(sandbox, pod)| {
            let extras = Extras {
                asked: pod.record.asked.clone(),
                egress: pod.record.egress,
            };
            (sandbox.clone(), extras)
        });
        extras
            .filter(|(_, extras)| *extras != Extras::default())
            .collect()
    }

    fn all_live(&self) -> Vec<Live> {
        self.shared
            .live
            .lock()
            .expect("no holder panics")
            .values()
            .cloned()
            .collect()
    }

    /// The key under which the sandbox is recorded. A runtime asks under the network's name of today, also for a sandbox
    /// that was made when the network had its former name.
    fn known_as(&self, sandbox: &Sandbox) -> Sandbox {
        let former = Sandbox {
            network: FORMER_NETWORK.to_owned(),
            ..sandbox.clone()
        };
        let renamed = sandbox.network == NETWORK
            && self.live(sandbox).is_none()
            && self.live(&former).is_some();
        if renamed { former } else { sandbox.clone() }
    }

    fn live(&self, sandbox: &Sandbox) -> Option<Live> {
        self.shared
            .live
            .lock()
            .expect("no holder panics")
            .get(sandbox)
            .cloned()
    }
}

fn store_failed(failed: Result<Result<(), StoreError>, Gone>) -> Refusal {
    match failed {
        Ok(Err(error)) => refusals::of_store(&error),
        _ => refusals::stopping(Reason::Store),
    }
}

/// A MAC that is the same for every repetition of one sandbox's ADD and differs between sandboxes. It is in the record,
/// so the hash may change between releases.
fn mac(sandbox: &Sandbox, end: &str) -> Mac {
    let mut hasher = DefaultHasher::new();
    (sandbox, end).hash(&mut hasher);
    let [a, b, c, d, e, f, ..] = hasher.finish().to_be_bytes();
    Mac::local([a, b, c, d, e, f])
}
