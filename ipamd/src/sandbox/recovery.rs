//! What a restarted daemon trusts: a pod is alive if record and kernel agree on it. Runs once, before anything is
//! served.
//!
//! The kernel alone is enough to keep a pod: a link with a route may carry traffic, whether or not a record shows its
//! owner (the state file was corrupt, or an ADD died between kernel and record). Nothing that may be alive is removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use datapath::pod::HostSide;
use nettypes::Asked;
use planner::{EniId, Mac, Mono, Observed, Pod, Restored, Sandbox};

use crate::{
    host::{
        names,
        seam::{Live, PodHost, WireError},
    },
    state::{
        store::{Contents, Record, Store, StoreError},
        unknown::unknown,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error(transparent)]
    Kernel(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The combined state of record and kernel.
#[derive(Debug, Default)]
pub struct Agreed {
    pub restored: Restored,
    /// Live pods, with records.
    pub pods: Vec<Live>,
    /// Links with a route and without a record.
    pub orphans: Vec<HostSide>,
    /// Addresses that have lost their pod, and the end of their cooldown, including those that are over.
    pub left: Vec<(IpAddr, Mono)>,
    /// The same of addresses for destinations of the other family. The planner does not know them.
    pub left_egress: Vec<(IpAddr, Mono)>,
}

/// A change that a start makes before the daemon serves requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The pod of this record was deleted while no daemon was running. Its address is in cooldown until this time.
    Release { record: Box<Record>, until: Mono },
    /// A link without a route: an ADD was interrupted before the pod was reachable, or a DEL after it was unreachable.
    RemoveLink { index: u32, name: String },
}

/// Compares the records with the existing links. The steps free records without a link, and links without a route.
#[must_use]
pub fn plan(
    contents: Contents,
    links: Vec<HostSide>,
    cooldown: Duration,
    now: Mono,
) -> (Vec<Step>, Agreed) {
    let (mut steps, mut agreed) = (Vec::new(), Agreed::default());
    agreed.restored.enis = contents.enis;
    agreed.restored.demand = contents.demand;
    let mut by_address: BTreeMap<IpAddr, Vec<&HostSide>> = BTreeMap::new();
    for link in &links {
        let address = link.address.into_iter();
        address.for_each(|address| by_address.entry(address).or_default().push(link));
    }
    let mut kept = BTreeSet::new();
    for record in contents.records {
        let mut links = by_address.get(&record.address).into_iter().flatten();
        if let Some(link) = links.find(|link| names::is_link_of(&record, link)) {
            let host_index = link.ifindex;
            kept.insert(host_index);
            agreed.keep(Live { record, host_index });
        } else {
            let until = now + cooldown;
            agreed.left.push((record.address, until));
            agreed
                .left_egress
                .extend(record.egress.map(|egress| (egress, until)));
            let record = Box::new(record);
            steps.push(Step::Release { record, until });
        }
    }
    for link in links {
        if kept.contains(&link.ifindex) {
            continue;
        }
        match link.address {
            Some(_) => agreed.orphans.push(link),
            None => steps.push(Step::RemoveLink {
                index: link.ifindex,
                name: link.name,
            }),
        }
    }
    agreed.left.extend(contents.cooling);
    let resting = agreed.left.iter().filter(|&&(_, until)| until > now);
    agreed.restored.cooling = resting.copied().collect();
    (steps, agreed)
}

/// Makes the records and the kernel agree, and returns the result.
///
/// # Errors
/// If the kernel cannot be read, or the store cannot be written.
pub async fn agree(
    store: &Store,
    contents: Contents,
    host: &impl PodHost,
    cooldown: Duration,
    now: Mono,
) -> Result<Agreed, RecoveryError> {
    let (steps, agreed) = plan(contents, host.list().await?, cooldown, now);
    for step in steps {
        match step {
            Step::Release { record, until } => {
                tracing::info!(address = %record.address, pod = record.pod.name, "a pod was deleted while the daemon was not running");
                store.release(&record, until)?;
            }
            Step::RemoveLink { index, name } => {
                tracing::info!(link = name, "removing a pod link without a route");
                host.remove_link(index).await;
            }
        }
    }
    Ok(agreed)
}

impl Agreed {
    fn keep(&mut self, live: Live) {
        let Record {
            sandbox,
            pod,
            address,
            eni,
            ..
        } = live.record.clone();
        self.restored.assigned.push((sandbox, pod, address, eni));
        self.pods.push(live);
    }

    /// Addresses that have lost their pod and have no other: an ADD may have died between kernel and record.
    pub fn left_empty(&self) -> impl Iterator<Item = (IpAddr, Mono)> + '_ {
        let held = |address| self.pods.iter().any(|pod| pod.record.address == address);
        self.left
            .iter()
            .copied()
            .filter(move |(address, _)| !held(*address))
            .chain(self.left_egress.iter().copied())
    }

    /// Removes ENIs without a link: they were removed in the meantime. EC2's list will show whether the link is only
    /// late.
    pub fn keep_linked(&mut self, macs: &BTreeSet<Mac>) {
        self.restored.enis.retain(|eni| macs.contains(&eni.mac));
    }

    /// Whether `enis` contain every orphan's address, so that no other list is needed to adopt them.
    #[must_use]
    pub fn explained_by(&self, enis: &[Observed]) -> bool {
        self.orphans.iter().all(|link| owner(link, enis).is_some())
    }

    /// Creates a record for each orphan, so that its address stays in use until its link disappears or its DEL arrives.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn adopt(&mut self, store: &Store) -> Result<(), RecoveryError> {
        for link in std::mem::take(&mut self.orphans) {
            let known = |sandbox: &Sandbox| self.pods.iter().any(|p| p.record.sandbox == *sandbox);
            let Some(record) = adopted(&link, &self.restored.enis, known) else {
                // Its route stays and prevents that the address is assigned again: the kernel refuses a second route.
                tracing::error!(
                    link = link.name,
                    address = link.address.map(tracing::field::display),
                    "a pod's address is on no ENI of this node"
                );
                continue;
            };
            tracing::warn!(link = link.name, address = %record.address, "adopting a pod without a record");
            store.put(&record)?;
            let host_index = link.ifindex;
            self.keep(Live { record, host_index });
        }
        Ok(())
    }
}

/// Builds the record of a pod from its link, if its address is on one of `enis`. Its sandbox is that which the link names,
/// unless this one is `known`: it has another link.
fn adopted(link: &HostSide, enis: &[Observed], known: impl Fn(&Sandbox) -> bool) -> Option<Record> {
    let (address, eni) = owner(link, enis)?;
    let named = link.owner.as_deref().and_then(names::sandbox_of);
    Some(Record {
        sandbox: named
            .filter(|sandbox| !known(sandbox))
            .unwrap_or_else(|| unknown(&link.name)),
        pod: Pod::default(),
        address,
        eni,
        index: link.uplink.index(),
        host_name: link.name.clone(),
        host_mac: link.mac,
        pod_mac: None,
        mtu: None,
        secondary: false,
        // Its bandwidth is not known; what limits it stays on its link.
        asked: Asked {
            ports: link.ports.clone(),
            ..Asked::default()
        },
        egress: link.egress,
    })
}

fn owner(link: &HostSide, enis: &[Observed]) -> Option<(IpAddr, EniId)> {
    let address = link.address?;
    let holds = |eni: &&Observed| {
        eni.addresses.contains(&address) || eni.prefixes.iter().any(|net| net.contains(&address))
    };
    enis.iter()
        .find(holds)
        .map(|eni| (address, eni.eni.clone()))
}

#[cfg(test)]
mod tests;
