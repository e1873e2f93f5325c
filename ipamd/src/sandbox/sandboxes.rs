//! The verbs as transactions: address, kernel and durable record change together or not at all.
//!
//! The order is guaranteed. ADD: address reserved → network wired → record durable → address assigned → answered; a
//! failure undoes everything before it. DEL: address unreachable → record freed → address cooling → answered; the link
//! itself is removed after the answer. There is one operation at a time per sandbox; different sandboxes never wait for
//! each other here.
//!
//! May use the rest of `sandbox`, `pool`, `state`, `host`, `config`, `runtime` and `telemetry`. Must not know EC2 or
//! how a request arrived.

mod sweep;

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use datapath::{pod::PodLink, uplink::Uplink};
use planner::{Event, Mac, Mono, Obstacle, Pod, Sandbox};
use proto::{
    error_chain::chain,
    handover::Handed,
    names::{FORMER_NETWORK, NETWORK},
    refusal::Refusal,
    v1::Reason,
};

use super::{
    early_del::EarlyDels,
    keyed_lock::{Guard, KeyedLock},
};
use crate::{
    config,
    host::{
        hostnet::{HostNet, link_of, ref_of},
        seam::{PodHost, WireError},
    },
    pool::driver::{Grant, Granted, Pool},
    runtime::{
        supervise::Detached,
        worker::{Gone, Worker},
    },
    sandbox::refusals,
    state::{
        store::{Record, Store, StoreError},
        unknown::unknown,
    },
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
    pub handed: Handed,
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
    early_dels: Mutex<EarlyDels>,
    /// The contents of the store. Changed only by the holder of the sandbox's guard.
    records: Mutex<BTreeMap<Sandbox, Record>>,
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
        records: Vec<Record>,
        config: &config::Config,
        recorder: Recorder,
        detached: Detached,
    ) -> Self {
        let records = records
            .into_iter()
            .map(|record| (record.sandbox.clone(), record))
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
                early_dels: Mutex::default(),
                records: Mutex::new(records),
            }),
        }
    }

    /// Assigns an address and wires the sandbox. If the sandbox is already wired, returns the same result again.
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
        if self.record(&request.sandbox).is_none() {
            // A previous ADD of this sandbox whose record was lost: its link has the name that the new one needs.
            self.take_down_unknown(&request.sandbox).await?;
        }
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
            return self
                .record(&request.sandbox)
                .ok_or_else(|| refusals::no_record(&request.sandbox));
        };
        let (link, record) = self.plan(&request, grant);
        match self.wire_and_record(link, &record, request.handed).await {
            Ok(()) => {
                let sandbox = record.sandbox.clone();
                shared
                    .records
                    .lock()
                    .expect("no holder panics")
                    .insert(sandbox.clone(), record.clone());
                shared.pool.tell(Event::Wired { sandbox }).await;
                Ok(record)
            }
            Err((refusal, what_became_of_it)) => {
                shared.pool.tell(what_became_of_it).await;
                Err(refusal)
            }
        }
    }

    fn plan(&self, request: &Add, grant: Grant) -> (PodLink, Record) {
        let sandbox = &request.sandbox;
        let prefix = request
            .veth_prefix
            .as_deref()
            .unwrap_or(&self.shared.network.veth_prefix);
        let link = PodLink {
            host_name: datapath::pod::host_name(prefix, &parts(sandbox)),
            pod_name: sandbox.ifname.clone(),
            address: grant.address,
            mtu: request.mtu.unwrap_or(self.shared.network.pod_mtu),
            uplink: Uplink::Eni(grant.index),
            host_mac: mac(sandbox, "host"),
            pod_mac: mac(sandbox, "pod"),
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
        };
        (link, record)
    }

    /// Kernel and record at once, each on its own thread: neither is trusted without the other. A crash leaves a link
    /// without a record, or a record without a link, and the next start removes either before anything is served.
    ///
    /// A failure contains what the pool must know about the address: no other host has seen it, so it is free, unless
    /// the kernel still routes it to another pod. Then it must go into cooldown and not be assigned again immediately.
    async fn wire_and_record(
        &self,
        link: PodLink,
        record: &Record,
        handed: Handed,
    ) -> Result<(), (Refusal, Event)> {
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
        let ((wired, at), written) = tokio::join!(biased; wiring, writing);
        shared.staged(&record.sandbox, "add", "commit", at);
        match (wired, written) {
            (Ok(()), Ok(Ok(()))) => Ok(()),
            (Ok(()), failed) => {
                shared.host.unwire(ref_of(record)).await.1.await;
                Err((store_failed(failed), Event::Unwired { sandbox }))
            }
            (Err(error), written) => {
                if let Ok(Ok(())) = written {
                    self.forget(record.clone()).await;
                }
                let event = match error {
                    WireError::AddressInUse(_) => Event::Left { sandbox },
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

    /// Removes the sandbox's network and frees its address. An unknown sandbox is a success.
    ///
    /// # Errors
    /// A refusal if the record could not be freed. The address is unreachable anyway, and a repetition completes the
    /// DEL.
    pub async fn del(&self, sandbox: &Sandbox) -> Result<(), Refusal> {
        let sandbox = &self.known_as(sandbox);
        let shared = &self.shared;
        shared.locks.cancel(sandbox);
        let begun = shared.pool.now();
        let guard = shared.locks.lock(sandbox).await;
        shared.staged(sandbox, "del", "turn", begun);
        match self.record(sandbox) {
            Some(record) => self.take_down(record, guard).await,
            None if self.take_down_unknown(sandbox).await? => Ok(()),
            None => {
                shared
                    .early_dels
                    .lock()
                    .expect("no holder panics")
                    .record(sandbox.clone(), shared.pool.now());
                Ok(())
            }
        }
    }

    /// Removes the link that this sandbox must have if its record was lost; returns whether there was one.
    async fn take_down_unknown(&self, sandbox: &Sandbox) -> Result<bool, Refusal> {
        let former = Sandbox {
            network: FORMER_NETWORK.to_owned(),
            ..sandbox.clone()
        };
        if sandbox.network == NETWORK && self.take_down_link_of(&former).await? {
            return Ok(true);
        }
        self.take_down_link_of(sandbox).await
    }

    async fn take_down_link_of(&self, sandbox: &Sandbox) -> Result<bool, Refusal> {
        let name = datapath::pod::host_name(&self.shared.network.veth_prefix, &parts(sandbox));
        let unknown = unknown(&name);
        // The sweep uses this key too.
        let guard = self.shared.locks.lock(&unknown).await;
        match self.record(&unknown) {
            Some(record) => {
                self.take_down(record, guard).await?;
                // The link is removed by name, so the guard is kept: an ADD that follows creates a link with the same
                // name.
                drop(self.shared.locks.lock(&unknown).await);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn take_down(&self, record: Record, guard: Guard) -> Result<(), Refusal> {
        let shared = &self.shared;
        shared.recorder.spans.pod(&record.sandbox, &record.pod);
        let begun = shared.pool.now();
        let (unrouted, removal) = shared.host.unwire(ref_of(&record)).await;
        let unwired = shared.staged(&record.sandbox, "del", "unwire", begun);
        // The guard ends with the link: a repeated ADD for this sandbox must not meet the old link, and the removal by
        // name must not meet the new one.
        drop(shared.detached.spawn(async move {
            removal.await;
            drop(guard);
        }));
        // The record stays until a repetition, or the sweep after the link is gone, finds no route to remove.
        unrouted
            .map_err(|error| refusals::of_unwiring(&record.host_name, record.address, &error))?;
        let until = shared.pool.now() + shared.cooldown;
        let freed = record.clone();
        match shared
            .store
            .run(move |store| store.release(&freed, until))
            .await
        {
            Ok(Ok(())) => drop(shared.staged(&record.sandbox, "del", "commit", unwired)),
            failed => return Err(store_failed(failed)),
        }
        shared
            .records
            .lock()
            .expect("no holder panics")
            .remove(&record.sandbox);
        // Before the pool can assign the address again.
        shared.host.left(record.address, until);
        shared
            .pool
            .tell(Event::Left {
                sandbox: record.sandbox,
            })
            .await;
        Ok(())
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
        let record = self
            .record(sandbox)
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
        // A pod that was adopted without a record has a key that no runtime uses.
        let wiring = link_of(&record).ok_or_else(|| refusals::no_record(sandbox))?;
        match self.shared.host.check(wiring.clone(), handed).await {
            Ok(drifts) if drifts.is_empty() => Ok(()),
            Ok(drifts) => Err(refusals::drift(sandbox, &drifts.join("; "))),
            Err(error) => Err(refusals::of_wiring(&wiring, &error)),
        }
    }

    /// Deletes every sandbox of `network` that is not in `valid` and returns their number.
    ///
    /// # Errors
    /// The first refusal, after all others have been tried.
    pub async fn gc(&self, network: &str, valid: &[(String, String)]) -> Result<u32, Refusal> {
        let doomed: Vec<Sandbox> = {
            let records = self.shared.records.lock().expect("no holder panics");
            let listed = |sandbox: &Sandbox| {
                valid
                    .iter()
                    .any(|(id, ifname)| *id == sandbox.container_id && *ifname == sandbox.ifname)
            };
            records
                .keys()
                .filter(|sandbox| sandbox.network == network && !listed(sandbox))
                .cloned()
                .collect()
        };
        let mut released = 0;
        let mut refused = None;
        for sandbox in &doomed {
            match self.del(sandbox).await {
                Ok(()) => released += 1,
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        refused.map_or(Ok(released), Err)
    }

    fn records(&self) -> Vec<Record> {
        self.shared
            .records
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
            && self.record(sandbox).is_none()
            && self.record(&former).is_some();
        if renamed { former } else { sandbox.clone() }
    }

    fn record(&self, sandbox: &Sandbox) -> Option<Record> {
        self.shared
            .records
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

/// The parts of a host end's name.
fn parts(sandbox: &Sandbox) -> [&str; 3] {
    [&sandbox.network, &sandbox.container_id, &sandbox.ifname]
}

/// A MAC that is the same for every repetition of one sandbox's ADD and differs between sandboxes. It is in the record,
/// so the hash may change between releases.
fn mac(sandbox: &Sandbox, end: &str) -> Mac {
    let mut hasher = DefaultHasher::new();
    (sandbox, end).hash(&mut hasher);
    let [a, b, c, d, e, f, ..] = hasher.finish().to_be_bytes();
    Mac::local([a, b, c, d, e, f])
}
