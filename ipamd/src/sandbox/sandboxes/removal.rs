//! DEL and GC: a sandbox's network is removed, and its address freed.

use planner::{Event, Sandbox};
use proto::{
    handover::Handed,
    names::{FORMER_NETWORK, NETWORK},
    refusal::Refusal,
};

use super::{Sandboxes, store_failed};
use crate::{
    host::{
        hostnet::{link_of, ref_of},
        names,
        seam::{Live, PodHost},
    },
    sandbox::{keyed_lock::Guard, refusals},
    state::unknown::unknown,
};

impl<H: PodHost> Sandboxes<H> {
    /// Removes the sandbox's network and frees its address. An unknown sandbox is a success. `handed`: the pod's namespace, if
    /// it still exists, for what does not disappear with the link.
    ///
    /// # Errors
    /// A refusal if the record could not be freed. The address is unreachable anyway, and a repetition completes the
    /// DEL.
    pub async fn del(&self, sandbox: &Sandbox, handed: Option<Handed>) -> Result<(), Refusal> {
        let sandbox = &self.known_as(sandbox);
        let shared = &self.shared;
        shared.locks.cancel(sandbox);
        let begun = shared.pool.now();
        let guard = shared.locks.lock(sandbox).await;
        shared.staged(sandbox, "del", "turn", begun);
        match self.live(sandbox) {
            Some(pod) => {
                let link = link_of(&pod.record).filter(|link| link.secondary);
                if let (Some(link), Some(handed)) = (link, handed) {
                    shared.host.forget_attachment(link, handed).await;
                }
                self.take_down(pod, guard).await
            }
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

    /// Removes the link that this sandbox must have if an earlier release made it and its record was lost; returns whether
    /// there was one.
    pub(super) async fn take_down_unknown(&self, sandbox: &Sandbox) -> Result<bool, Refusal> {
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
        let unknown = unknown(&names::former(&self.shared.network.veth_prefix, sandbox));
        // The sweep uses this key too.
        let guard = self.shared.locks.lock(&unknown).await;
        match self.live(&unknown) {
            Some(pod) => {
                self.take_down(pod, guard).await?;
                // An ADD that follows creates an interface with the same name in the pod.
                drop(self.shared.locks.lock(&unknown).await);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    pub(super) async fn take_down(&self, pod: Live, guard: Guard) -> Result<(), Refusal> {
        let shared = &self.shared;
        shared
            .recorder
            .spans
            .pod(&pod.record.sandbox, &pod.record.pod);
        let begun = shared.pool.now();
        let (unrouted, removal) = shared.host.unwire(ref_of(&pod)).await;
        let record = pod.record;
        let unwired = shared.staged(&record.sandbox, "del", "unwire", begun);
        // The guard ends with the link: a repeated ADD for this sandbox must not meet the old link.
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
            .live
            .lock()
            .expect("no holder panics")
            .remove(&record.sandbox);
        let ports = &record.asked.ports;
        if !ports.is_empty() {
            let mut book = shared.ports.lock().expect("no holder panics");
            book.free(&record.sandbox, ports);
        }
        // Before the pool can assign the address again.
        shared.host.left(record.address, until);
        if let Some(egress) = record.egress {
            shared.host.left(egress, until);
            shared.egress.end(egress);
        }
        shared
            .pool
            .tell(Event::Left {
                sandbox: record.sandbox,
            })
            .await;
        Ok(())
    }

    /// Deletes every sandbox of `network` that is not in `valid` and returns their number.
    ///
    /// # Errors
    /// The first refusal, after all others have been tried.
    pub async fn gc(&self, network: &str, valid: &[(String, String)]) -> Result<u32, Refusal> {
        let doomed: Vec<Sandbox> = {
            let live = self.shared.live.lock().expect("no holder panics");
            let listed = |sandbox: &Sandbox| {
                valid
                    .iter()
                    .any(|(id, ifname)| *id == sandbox.container_id && *ifname == sandbox.ifname)
            };
            live.keys()
                .filter(|sandbox| sandbox.network == network && !listed(sandbox))
                .cloned()
                .collect()
        };
        let mut released = 0;
        let mut refused = None;
        for sandbox in &doomed {
            match self.del(sandbox, None).await {
                Ok(()) => released += 1,
                Err(refusal) => refused = refused.or(Some(refusal)),
            }
        }
        refused.map_or(Ok(released), Err)
    }
}
