//! Pods that ended without a DEL. When a namespace ends, the kernel removes its link and routes, and containerd 2 does
//! not repeat a failed DEL. A record without a link then remains, and no request will free it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use datapath::pod::HostSide;
use planner::{Mono, Sandbox};
use proto::{error_chain::chain, names::SandboxKey, tombstone};
use tokio::sync::Notify;

use super::Sandboxes;
use crate::{
    host::seam::{Live, PodHost as _},
    runtime::clock,
};

/// How often the links are checked, even without a notification of a removed link.
const PERIOD: Duration = Duration::from_secs(10);
/// How long a link must have been missing. A record and its link are not created at the same instant: a list that is
/// read in between must not cost a live pod its address. Also, a DEL that is only late finds its sandbox.
const GRACE: Duration = Duration::from_secs(10);

impl Sandboxes {
    /// Deletes the sandboxes whose DEL came while no daemon was running, and removes their tombstones.
    pub async fn honour_tombstones(&self, directory: &Path) {
        let found = match tombstone::all(directory) {
            Ok(found) => found,
            Err(error) => {
                return tracing::error!(directory = %directory.display(), %error, "could not read tombstones");
            }
        };
        for path in found.unreadable {
            tracing::warn!(path = %path.display(), "moved an unreadable tombstone aside");
        }
        for (path, key) in found.standing {
            let sandbox = sandbox_of(key);
            tracing::info!(
                %sandbox,
                "processing a DEL that came while the daemon was not running"
            );
            match self.del(&sandbox, None).await {
                Ok(()) => drop(std::fs::remove_file(&path)),
                Err(refusal) => {
                    tracing::error!(%sandbox, %refusal, "the tombstone stays until the next check")
                }
            }
        }
    }

    /// Runs forever: at intervals, and immediately when `ended` is notified of a removed link.
    pub async fn sweep(self, tombstones: PathBuf, ended: Arc<Notify>) {
        let mut suspects = Suspects::default();
        loop {
            let wait = suspects.next_look(clock::now());
            // Both are cancel-safe: a notification is kept, and time has no state.
            tokio::select! {
                () = ended.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
            // A new one may come from a plugin that stopped waiting for a daemon that was too busy to answer.
            self.honour_tombstones(&tombstones).await;
            if let Err(error) = self.release_egress().await {
                tracing::error!(
                    error = chain(&error),
                    "could not list the addresses that others have"
                );
            }
            let links = match self.shared.host.list().await {
                Ok(links) => links,
                Err(error) => {
                    tracing::error!(error = chain(&error), "could not list the node's pod links");
                    continue;
                }
            };
            for sandbox in suspects.overdue(&self.all_live(), &links, clock::now()) {
                tracing::info!(
                    %sandbox,
                    "released a sandbox: its link is gone, and there was no DEL"
                );
                if let Err(refusal) = self.del(&sandbox, None).await {
                    tracing::error!(%sandbox, %refusal, "could not release a sandbox that has ended");
                }
            }
        }
    }
}

fn sandbox_of(key: SandboxKey) -> Sandbox {
    Sandbox {
        network: key.network.into(),
        container_id: key.container_id.into(),
        ifname: key.ifname.into(),
    }
}

/// Sandboxes without a link, and since when.
#[derive(Debug, Default)]
struct Suspects(BTreeMap<Sandbox, Mono>);

impl Suspects {
    /// Those that have been without a link at every check for the whole time.
    fn overdue(&mut self, pods: &[Live], links: &[HostSide], now: Mono) -> Vec<Sandbox> {
        let standing: BTreeSet<u32> = links.iter().map(|link| link.ifindex).collect();
        let absent = pods
            .iter()
            .filter(|pod| !standing.contains(&pod.host_index))
            .map(|pod| &pod.record);
        let since = |sandbox: &Sandbox| self.0.get(sandbox).copied().unwrap_or(now);
        let all: Vec<_> = absent
            .map(|record| (record.sandbox.clone(), since(&record.sandbox)))
            .collect();
        let (overdue, waiting): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|(_, since)| now.since(*since) >= GRACE);
        self.0 = waiting.into_iter().collect();
        overdue.into_iter().map(|(sandbox, _)| sandbox).collect()
    }

    /// The time until the next check is necessary, without a notification.
    fn next_look(&self, now: Mono) -> Duration {
        let waits = self.0.values().map(|since| (*since + GRACE).since(now));
        waits.min().map_or(PERIOD, |wait| wait.min(PERIOD))
    }
}

#[cfg(test)]
mod tests {
    use planner::{EniId, Mac, Pod};

    use super::*;
    use crate::state::store::Record;

    /// The name of the host end is the same for all, as for sandboxes of one pod.
    fn live(host_index: u32) -> Live {
        let record = Record {
            sandbox: Sandbox {
                network: "n".into(),
                container_id: host_index.to_string(),
                ifname: "eth0".into(),
            },
            pod: Pod::default(),
            address: [10, 0, 0, 5].into(),
            eni: EniId::from("eni-1"),
            index: nettypes::EniIndex::PRIMARY,
            host_name: "eni".into(),
            host_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            pod_mac: Some(Mac([2, 0, 0, 0, 0, 1])),
            mtu: Some(9001),
            secondary: false,
            asked: nettypes::Asked::default(),
            egress: None,
        };
        Live { record, host_index }
    }

    fn link(ifindex: u32) -> HostSide {
        HostSide {
            ifindex,
            name: "eni".into(),
            owner: None,
            uplink: datapath::uplink::Uplink::Eni(nettypes::EniIndex::PRIMARY),
            mac: None,
            address: None,
            egress: None,
            ports: Vec::new(),
        }
    }

    #[test]
    fn an_absence_counts_once_it_has_lasted() {
        let (pods, mut suspects) = ([live(7), live(8)], Suspects::default());
        let (begun, soon) = (Mono::ZERO, Mono::ZERO + GRACE / 2);
        assert!(suspects.overdue(&pods, &[link(8)], begun).is_empty());
        assert_eq!(suspects.next_look(soon), GRACE / 2);
        // However often it is checked in between.
        assert!(suspects.overdue(&pods, &[link(8)], soon).is_empty());
        let after = begun + GRACE;
        assert_eq!(
            suspects.overdue(&pods, &[link(8)], after),
            [live(7).record.sandbox]
        );
    }

    #[test]
    fn a_link_that_reappears_is_not_suspect() {
        let (pods, mut suspects) = ([live(7)], Suspects::default());
        assert!(suspects.overdue(&pods, &[], Mono::ZERO).is_empty());
        let back = Mono::ZERO + GRACE / 2;
        assert!(suspects.overdue(&pods, &[link(7)], back).is_empty());
        assert_eq!(suspects.next_look(back), PERIOD);
        let later = Mono::ZERO + GRACE;
        assert!(suspects.overdue(&pods, &[], later).is_empty());
    }
}
