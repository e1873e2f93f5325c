//! What a restarted daemon believes: a pod lives if record and kernel agree on it. Runs once, before anything is served.

use datapath::pod::PodRef;
use planner::Restored;

use crate::{
    clock,
    hostnet::{HostNet, WireError, ref_of},
    store::{Contents, Record, Store, StoreError},
};

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Kernel(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Compares the records with the links that stand, frees what has no link, and removes links that no record claims
/// (an ADD that died between kernel and record).
///
/// # Errors
/// If kernel or store cannot be asked.
pub async fn agree(
    store: &Store,
    contents: Contents,
    host: &HostNet,
    cooldown: std::time::Duration,
) -> Result<(Restored, Vec<Record>), RecoveryError> {
    let now = clock::now();
    let links = host.list().await?;
    let mut restored = Restored {
        enis: contents.enis,
        ..Restored::default()
    };
    let mut live = Vec::new();
    for record in contents.records {
        let stands = |link: &&datapath::pod::HostSide| {
            link.name == record.host_name && link.address == Some(record.address)
        };
        if links.iter().any(|link| stands(&link)) {
            let Record {
                sandbox,
                pod,
                address,
                eni,
                ..
            } = record.clone();
            restored.assigned.push((sandbox, pod, address, eni));
            live.push(record);
        } else {
            tracing::info!(address = %record.address, pod = record.pod.name, "pod left while the daemon was away");
            let until = now + cooldown;
            store.release(&record, until)?;
            host.unwire(ref_of(&record)).await.await;
            restored.cooling.push((record.address, until));
        }
    }
    for link in links
        .iter()
        .filter(|link| live.iter().all(|record| record.host_name != link.name))
    {
        tracing::warn!(
            link = link.name,
            "removing a pod link that no record claims"
        );
        let address = link.address.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
        host.unwire(PodRef {
            host_name: link.name.clone(),
            address,
        })
        .await
        .await;
    }
    restored.cooling.extend(
        contents
            .cooling
            .into_iter()
            .filter(|&(_, until)| until > now),
    );
    Ok((restored, live))
}
