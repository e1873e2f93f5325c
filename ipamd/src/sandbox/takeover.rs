//! Taking the node's pods over from the AWS VPC CNI, at the first start after it: same addresses, same ENIs, same wiring inside
//! the pods. Only the records and the host's side change, while packets flow.
//!
//! [`plan`] decides. [`Takeover::begin`] adopts one pod after the other: first its record, then its link, beside the rules that
//! it has. [`Takeover::finish`] removes these, and moves the checkpoint aside as the last step of all. Until then, a process
//! that dies is continued by the next one: what is done is found done.
//!
//! Only if the directory of the checkpoint is there: the operator mounts it for this purpose. May use the rest of `sandbox`,
//! `state` and `host`. Must not know EC2.

pub mod plan;

use std::path::{Path, PathBuf};

use datapath::{
    host::{ForeignPod, Predecessor},
    marks::Marks,
    netlink::Socket,
    pod::HostSide,
};
use planner::{Family, InstanceType, Mono, Observed, Op, command::ConfigureEni};
use proto::error_chain::chain;

use self::plan::{Adoption, Evidence, Plan, Refusal};
use super::recovery::Agreed;
use crate::{
    config::Config,
    host::{
        hostnet::HostNet,
        seam::{EniHost as _, PodHost as _, WireError},
    },
    state::{
        aws_node::{self, Allocation, Checkpoint, CheckpointError},
        store::{Contents, Record, Store, StoreError},
    },
};

/// Why the node was not taken over. The pods are as they were, or adopted.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<Refusal>),
    #[error("an ENI with pods of the AWS VPC CNI could not be prepared: {0}")]
    Eni(String),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Kernel(#[from] WireError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How to take over.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Of the checkpoint.
    pub directory: PathBuf,
    pub despite_policies: bool,
    pub family: Family,
    /// Of packets, ours.
    pub marks: Marks,
    pub cooldown: std::time::Duration,
    /// The network card of the primary ENI.
    pub default_card: u16,
}

/// Those of this daemon, on an instance of this type.
#[must_use]
pub fn settings(config: &Config, kind: &InstanceType) -> Settings {
    Settings {
        directory: config.takeover.directory.clone(),
        despite_policies: config.takeover.despite_policies,
        family: config.pool.family,
        marks: config.egress.marks,
        cooldown: config.pool.cooldown,
        default_card: kind.default_card,
    }
}

/// A takeover that is due.
#[derive(Debug)]
pub struct Takeover {
    settings: Settings,
    checkpoints: Vec<(u16, Checkpoint)>,
    pods: Vec<ForeignPod>,
}

/// What remains to be done when the pods are Hawser's.
#[derive(Debug)]
pub struct Adopted {
    directory: PathBuf,
    /// Of pods that have ended.
    dead: Vec<Allocation>,
    /// Addresses that no pod has.
    resting: Vec<std::net::IpAddr>,
    until: Mono,
}

impl Takeover {
    /// Looks whether there is anything to take over. `None` if not, or if the directory of the checkpoint is not there.
    ///
    /// # Errors
    /// If the kernel or the checkpoint cannot be read.
    pub async fn look(settings: Settings, host: &HostNet) -> Result<Option<Self>, TakeoverError> {
        let pods = host.foreign_pods().await?;
        if !settings.directory.is_dir() {
            tell_of_pods(&pods, &settings.directory);
            return Ok(None);
        }
        let checkpoints = aws_node::read_all(&settings.directory)?;
        if pods.is_empty() && checkpoints.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            settings,
            checkpoints,
            pods,
        }))
    }

    /// Adopts every living pod, and adds its record to `contents`. `enis` are attached to this node.
    ///
    /// # Errors
    /// [`TakeoverError::Refused`] before anything is changed. After any other error, a repetition continues.
    pub async fn begin(
        self,
        (store, contents): (&Store, &mut Contents),
        host: &HostNet,
        enis: Vec<Observed>,
        now: Mono,
    ) -> Result<Adopted, TakeoverError> {
        let found = Found {
            checkpoints: self.checkpoints,
            pods: self.pods,
            own: host.list().await?,
        };
        let plan = found.plan(&self.settings, &enis);
        tell(&plan);
        let Plan {
            adopt,
            mut dead,
            free,
            refusals,
            ..
        } = plan;
        if !refusals.is_empty() {
            return Err(TakeoverError::Refused(refusals));
        }
        if self.settings.family == Family::V4 {
            configure(host, &enis, self.settings.default_card, &adopt).await?;
        }
        for Adoption {
            record, host_index, ..
        } in adopt
        {
            // The record first: without it, the link would belong to nobody after a crash.
            store.put(&record)?;
            if host.adopt(&record, host_index).await? {
                let known = &mut contents.records;
                known.retain(|other| other.sandbox != record.sandbox);
                known.push(record);
            } else {
                store.forget(&record)?;
                dead.push(ended(&record));
            }
        }
        contents.enis = of_the_pool(enis, &contents.records);
        Ok(Adopted {
            directory: self.settings.directory,
            dead,
            resting: free,
            until: now + self.settings.cooldown,
        })
    }
}

impl Adopted {
    /// Removes what the pods had from the AWS VPC CNI, has all other addresses rest, and moves the checkpoint aside. `agreed` has
    /// every pod, and the host manages them.
    ///
    /// # Errors
    /// A repetition of the start continues.
    pub async fn finish(
        self,
        store: &Store,
        host: &HostNet,
        agreed: &mut Agreed,
    ) -> Result<(), TakeoverError> {
        for what in host.remove_traces().await? {
            tracing::info!(what, "removed what a pod had from the AWS VPC CNI");
        }
        match host.remove_legacy_chains().await {
            Ok(removed) => removed
                .iter()
                .for_each(|what| tracing::info!(what, "removed what the AWS VPC CNI had")),
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "chains of the AWS VPC CNI stay in tables of iptables-legacy: they do the same as Hawser's, and ipamd doctor \
                     names them"
                );
            }
        }
        let dead = self.dead.iter().filter_map(Allocation::address);
        let dead: Vec<_> = dead.map(|address| (address, self.until)).collect();
        let free = self.resting.iter().map(|address| (*address, self.until));
        let resting: Vec<_> = dead.iter().copied().chain(free).collect();
        store.rest(&resting)?;
        agreed.left.extend(dead);
        agreed.restored.cooling.extend(resting);
        aws_node::set_aside(&self.directory)?;
        tracing::info!(pods = agreed.pods.len(), "the node is taken over");
        Ok(())
    }
}

/// The ENIs that the pool manages, and those with pods: whatever their tags say, the AWS VPC CNI managed them.
fn of_the_pool(enis: Vec<Observed>, records: &[Record]) -> Vec<Observed> {
    let mut kept = Vec::new();
    for mut eni in enis {
        eni.managed |= records.iter().any(|record| record.eni == eni.eni);
        kept.extend(eni.managed.then_some(eni));
    }
    kept
}

/// Makes the table and the mark of every ENI ready, so that a pod's group can lead there.
async fn configure(
    host: &HostNet,
    enis: &[Observed],
    default_card: u16,
    adopt: &[Adoption],
) -> Result<(), TakeoverError> {
    let indices = plan::indices(enis, default_card);
    for eni in enis {
        let (Some(attachment), Some(subnet_cidr), Some(index)) =
            (&eni.attached, eni.subnet_cidr, indices.get(&eni.eni))
        else {
            continue;
        };
        let has_pods = adopt.iter().any(|pod| pod.record.eni == eni.eni);
        let ours = eni.managed && attachment.settled;
        // Another one may belong to another program.
        if !has_pods && !ours {
            continue;
        }
        let settings = ConfigureEni {
            op: Op(0),
            eni: eni.eni.clone(),
            mac: eni.mac,
            primary: eni.primary,
            subnet_cidr,
            card: attachment.card,
            device: attachment.device,
            index: *index,
        };
        let configured = host.configure(settings).await;
        configured.map_err(|failure| TakeoverError::Eni(failure.message))?;
    }
    Ok(())
}

/// The entry of a pod that ended while it was being adopted.
fn ended(record: &Record) -> Allocation {
    Allocation {
        ipv4: Some(record.address),
        ..Allocation::default()
    }
}

fn tell(plan: &Plan) {
    tracing::info!(
        adopt = plan.adopt.len(),
        dead = plan.dead.len(),
        free = plan.free.len(),
        "taking the node over from the AWS VPC CNI"
    );
    for pod in plan.adopt.iter().filter(|pod| !pod.recorded) {
        let (link, address) = (&pod.record.host_name, pod.record.address);
        tracing::warn!(
            link,
            %address,
            "a pod of the AWS VPC CNI is in no checkpoint: its end will be seen by its link"
        );
    }
    for link in &plan.unverified {
        tracing::warn!(
            link,
            "the kernel does not show the address of this link's other end, inside the pod: the route and the checkpoint are \
             believed"
        );
    }
    for link in &plan.unexplained {
        tracing::warn!(
            link,
            "a link like a pod's has neither an address nor a record: it stays as it is"
        );
    }
}

fn tell_of_pods(pods: &[ForeignPod], directory: &Path) {
    if !pods.is_empty() {
        tracing::warn!(
            pods = pods.len(),
            directory = %directory.display(),
            "pods of the AWS VPC CNI live on this node, and its checkpoint is not there: they keep their rules, and their \
             addresses go to no other pod; see docs/takeover.md"
        );
    }
}

/// Plans a takeover that is due, so that one that is refused changes nothing on the node. Returns the ENIs that `list` lists;
/// `None` if there is nothing to take over.
///
/// # Errors
/// [`TakeoverError::Refused`], or if the kernel or the checkpoint cannot be read.
pub async fn refuse_or_list<L: Future<Output = Vec<Observed>>>(
    settings: &Settings,
    list: impl FnOnce() -> L,
) -> Result<Option<Vec<Observed>>, TakeoverError> {
    if !settings.directory.is_dir() {
        return Ok(None);
    }
    let mut socket = Socket::open().map_err(|error| WireError::Kernel(error.into()))?;
    let found = Found::read(settings, &mut socket)?;
    if found.pods.is_empty() && found.checkpoints.is_empty() {
        return Ok(None);
    }
    let enis = list().await;
    match found.plan(settings, &enis).refusals {
        refusals if refusals.is_empty() => Ok(Some(enis)),
        refusals => Err(TakeoverError::Refused(refusals)),
    }
}

/// The plan of a takeover, without a change.
///
/// # Errors
/// If the kernel or the checkpoint cannot be read.
pub fn dry_run(
    settings: &Settings,
    enis: &[Observed],
    socket: &mut Socket,
) -> Result<Plan, TakeoverError> {
    Ok(Found::read(settings, socket)?.plan(settings, enis))
}

/// What the node has.
struct Found {
    checkpoints: Vec<(u16, Checkpoint)>,
    pods: Vec<ForeignPod>,
    own: Vec<HostSide>,
}

impl Found {
    fn read(settings: &Settings, socket: &mut Socket) -> Result<Self, TakeoverError> {
        let kernel = |error: Box<dyn std::error::Error + Send + Sync>| WireError::Kernel(error);
        let of = Predecessor::AwsNode;
        let pods = datapath::host::find(socket, settings.family, settings.marks, of);
        let own = datapath::pod::list(socket);
        Ok(Self {
            checkpoints: aws_node::read_all(&settings.directory)?,
            pods: pods.map_err(|error| kernel(error.into()))?,
            own: own.map_err(|error| kernel(error.into()))?,
        })
    }

    fn plan(&self, settings: &Settings, enis: &[Observed]) -> Plan {
        plan::plan(&Evidence {
            checkpoints: &self.checkpoints,
            pods: &self.pods,
            own: &self.own,
            enis,
            default_card: settings.default_card,
            family: settings.family,
            despite_policies: settings.despite_policies,
        })
    }
}

#[cfg(test)]
mod tests;
