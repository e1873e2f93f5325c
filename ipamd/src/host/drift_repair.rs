//! Watches the node's network: receives changes by others, repairs them, and notifies the parts of the daemon that need
//! to know.
//!
//! Owns the subscriptions and the rate. The reconciler (`datapath::host::Reconciler`) interprets notifications and
//! repairs, on the thread that owns the host's network; this task only decides when.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use datapath::{
    host::{Changes, DirtySet, HostMonitor, Repaired},
    netlink::Kind,
};
use planner::Mono;
use proto::error_chain::chain;
use tokio::{
    sync::{Notify, mpsc},
    time::MissedTickBehavior,
};

use crate::{
    host::{
        egress_cni,
        hostnet::{HostNet, claims_of},
        seam::HostNews,
    },
    runtime::{clock, supervise::Detached},
    telemetry::metrics::Metrics,
};

/// Related changes come together: a flush is one notification per object.
const SETTLE: Duration = Duration::from_millis(50);
/// The time between two repairs, even if another program keeps undoing them.
const PAUSE: Duration = Duration::from_millis(250);
/// Everything is checked at this interval, because the kernel does not report changes of some settings.
const ROUND: Duration = Duration::from_secs(60);
/// The same kind of damage is logged once within this time.
const QUIET: Duration = Duration::from_secs(60);
/// Our own ENIs appear before EC2 has confirmed the attachment, and are known soon afterwards.
const UNKNOWN_LINK_DELAY: Duration = Duration::from_secs(30);

/// The task.
#[derive(Debug)]
pub struct DriftRepair {
    pub host: HostNet,
    /// Receives what the pool must know of the host.
    pub news: mpsc::Sender<HostNews>,
    pub metrics: Arc<Metrics>,
    pub detached: Detached,
    /// Notified when a pod's link disappeared.
    pub ended: Arc<Notify>,
    /// Notified when an unknown link appeared that may be an ENI.
    pub ask: Arc<Notify>,
}

impl DriftRepair {
    /// Runs forever.
    pub async fn run(self, monitor: HostMonitor) {
        let mut changes = match listen(monitor) {
            Ok(changes) => changes,
            Err(error) => return tracing::error!(%error, "the node's network cannot be watched"),
        };
        let mut log = Log::default();
        // The first round is immediate, for changes before the subscription.
        let mut round = tokio::time::interval(ROUND);
        round.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut dirty = DirtySet::default();
        let mut known = None;
        loop {
            if dirty.needs_repair() {
                let repaired = self.host.repair(dirty).await;
                self.report(&repaired, &mut log);
                for mac in &repaired.gone {
                    tracing::warn!(%mac, "the link of an ENI is gone");
                }
                for mac in repaired.gone.into_iter().chain(repaired.detached) {
                    if self.news.send(HostNews::LinkGone(mac)).await.is_err() {
                        // Without a receiver, the daemon is about to end.
                        return;
                    }
                }
                if let Some(claims) = repaired.claims
                    && known.as_ref() != Some(&claims)
                {
                    known = Some(claims.clone());
                    let claims = HostNews::Claims(claims_of(claims));
                    if self.news.send(claims).await.is_err() {
                        return;
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            // Both are cancel-safe: `recv` loses no message, `tick` no tick.
            dirty = tokio::select! {
                told = changes.recv() => match told {
                    Some(told) => self.host.mark_dirty(told, DirtySet::default()).await,
                    None => return,
                },
                _ = round.tick() => {
                    egress_cni::release(&self.host).await;
                    DirtySet::all()
                }
            };
            tokio::time::sleep(SETTLE).await;
            while let Ok(told) = changes.try_recv() {
                dirty = self.host.mark_dirty(told, dirty).await;
            }
            self.tell(&mut dirty);
        }
    }

    /// Forwards what is not repaired here.
    fn tell(&self, dirty: &mut DirtySet) {
        if std::mem::take(&mut dirty.ended) {
            tracing::info!("a pod's link is gone");
            self.ended.notify_one();
        }
        let unknown_links = std::mem::take(&mut dirty.unknown_links);
        if unknown_links.is_empty() {
            return;
        }
        let (host, ask) = (self.host.clone(), self.ask.clone());
        drop(self.detached.spawn_idle(async move {
            tokio::time::sleep(UNKNOWN_LINK_DELAY).await;
            if host.has_unknown_links(unknown_links).await {
                tracing::info!("an unknown network interface appeared");
                ask.notify_one();
            }
        }));
    }

    fn report(&self, repaired: &Repaired, log: &mut Log) {
        for (kind, changes) in repaired.changed.iter() {
            self.metrics.repaired(kind.name(), changes);
        }
        let now = clock::now();
        let fresh = log.fresh(repaired.changed.iter().map(|(kind, _)| kind), now);
        if fresh {
            let kinds = repaired.changed.iter();
            let kinds: Vec<_> = kinds
                .map(|(kind, n)| format!("{} {}", n, kind.name()))
                .collect();
            tracing::warn!(changed = kinds.join(", "), "repaired the node's network");
        }
        let failures: Vec<String> = repaired.failures.iter().map(|e| chain(e)).collect();
        if failures != log.failures {
            for error in &failures {
                tracing::error!(error, "could not repair the node's network");
            }
            log.failures = failures;
        }
    }
}

/// What was logged recently.
#[derive(Debug, Default)]
struct Log {
    said: BTreeMap<Kind, Mono>,
    failures: Vec<String>,
}

impl Log {
    /// Whether there is a kind that was not logged for a while.
    fn fresh(&mut self, kinds: impl Iterator<Item = Kind>, now: Mono) -> bool {
        let mut fresh = false;
        for kind in kinds {
            let said = self.said.get(&kind);
            if said.is_none_or(|at| now.since(*at) >= QUIET) {
                self.said.insert(kind, now);
                fresh = true;
            }
        }
        fresh
    }
}

/// Listens on its own thread, which ends with its receiver. One message at a time: while it is handled, further
/// notifications wait in the kernel.
fn listen(mut monitor: HostMonitor) -> std::io::Result<mpsc::Receiver<Changes>> {
    let (sender, changes) = mpsc::channel(1);
    let listen = move || {
        loop {
            let heard = match monitor.wait() {
                Ok(heard) => heard,
                Err(error) => return tracing::error!(error = chain(&error), "netlink failed"),
            };
            if sender.blocking_send(heard).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("monitor".to_owned())
        .spawn(listen)?;
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fight_is_logged_once_in_a_while_and_a_new_kind_at_once() {
        let (mut log, start) = (Log::default(), Mono::ZERO);
        assert!(!log.fresh(std::iter::empty(), start));
        assert!(log.fresh([Kind::Rule].into_iter(), start));
        assert!(!log.fresh([Kind::Rule].into_iter(), start + QUIET / 2));
        assert!(log.fresh([Kind::Rule, Kind::Route].into_iter(), start + QUIET / 2));
        assert!(log.fresh([Kind::Rule].into_iter(), start + QUIET));
    }
}
