//! Pods that ended without a DEL. When a namespace ends the kernel takes its link and routes along, and containerd 2
//! drops a failed DEL for good: a record without a link is then the only thing left, and nobody will ask for it.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use datapath::pod::HostSide;
use planner::Sandbox;
use proto::{names::SandboxKey, tombstone};

use super::Sandboxes;
use crate::{refusals::chain, store::Record};

/// How often the kernel is looked at. A pod is released at its second absence, so within twice this.
const PERIOD: Duration = Duration::from_secs(10);

impl Sandboxes {
    /// Deletes the sandboxes whose DEL came while no daemon did, and removes their tombstones.
    pub async fn honour_tombstones(&self, directory: &Path) {
        let found = match tombstone::all(directory) {
            Ok(found) => found,
            Err(error) => return tracing::error!(?directory, %error, "could not read tombstones"),
        };
        for path in found.unreadable {
            tracing::warn!(?path, "set a tombstone aside that cannot be read");
        }
        for (path, key) in found.standing {
            let sandbox = sandbox_of(key);
            tracing::info!(
                ?sandbox,
                "honouring a DEL that came while the daemon was away"
            );
            match self.del(&sandbox).await {
                Ok(()) => drop(std::fs::remove_file(&path)),
                Err(refusal) => {
                    tracing::error!(?sandbox, %refusal, "the tombstone stays until the next look")
                }
            }
        }
    }

    /// Looks for ever.
    pub async fn sweep(self, tombstones: PathBuf) {
        let mut suspects = BTreeSet::new();
        loop {
            tokio::time::sleep(PERIOD).await;
            // One more may have come from a plugin that gave up on a daemon too busy to answer.
            self.honour_tombstones(&tombstones).await;
            let links = match self.shared.host.list().await {
                Ok(links) => links,
                Err(error) => {
                    tracing::error!(
                        error = chain(&error),
                        "could not look at the node's pod links"
                    );
                    continue;
                }
            };
            let records: Vec<Record> = self.records();
            for sandbox in absent_twice(&records, &links, &mut suspects) {
                tracing::info!(?sandbox, "released: its link is gone and no DEL came");
                if let Err(refusal) = self.del(&sandbox).await {
                    tracing::error!(?sandbox, %refusal, "could not release a sandbox that has ended");
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

/// Sandboxes without a link now and at the last look; `suspects` becomes those without one now.
///
/// Two looks, because a record and its link are not made in one instant: a list read between the two must not cost a
/// living pod its address.
fn absent_twice(
    records: &[Record],
    links: &[HostSide],
    suspects: &mut BTreeSet<Sandbox>,
) -> Vec<Sandbox> {
    let standing: BTreeSet<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let absent = records
        .iter()
        .filter(|record| !standing.contains(record.host_name.as_str()));
    let absent: BTreeSet<Sandbox> = absent.map(|record| record.sandbox.clone()).collect();
    let twice = absent.intersection(suspects).cloned().collect();
    *suspects = absent;
    twice
}

#[cfg(test)]
mod tests {
    use planner::{EniId, Mac, Pod};

    use super::*;

    fn record(id: &str) -> Record {
        Record {
            sandbox: Sandbox {
                network: "n".into(),
                container_id: id.into(),
                ifname: "eth0".into(),
            },
            pod: Pod::default(),
            address: [10, 0, 0, 5].into(),
            eni: EniId::from("eni-1"),
            index: 0,
            host_name: format!("eni{id}"),
            host_mac: Mac::default(),
            pod_mac: Mac::default(),
            mtu: 9001,
        }
    }

    fn link(id: &str) -> HostSide {
        HostSide {
            ifindex: 7,
            name: format!("eni{id}"),
            index: 0,
            mac: None,
            address: None,
        }
    }

    #[test]
    fn only_the_second_absence_in_a_row_counts() {
        let (records, mut suspects) = ([record("a"), record("b")], BTreeSet::new());
        assert!(absent_twice(&records, &[link("b")], &mut suspects).is_empty());
        assert!(
            absent_twice(&records, &[link("a"), link("b")], &mut suspects).is_empty(),
            "it came back"
        );
        assert!(absent_twice(&records, &[link("b")], &mut suspects).is_empty());
        assert_eq!(
            absent_twice(&records, &[link("b")], &mut suspects),
            [record("a").sandbox]
        );
    }
}
