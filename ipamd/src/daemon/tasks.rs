//! Starts the pool, and the tasks that tell it of changes: in EC2, on the host and in Kubernetes.

use std::{path::Path, sync::Arc};

use planner::{Event, Family, Planner};
use tokio::sync::{Notify, mpsc, watch};

use super::{DaemonError, prepare::Node};
use crate::{
    config::PodSubnets,
    host::{
        drift_repair::DriftRepair, forwarding, marks_in_transit, other_family, vpc_blocks::Follower,
    },
    install::conflist,
    kube::{self, Announced},
    pool::{
        checkpoint, discovery,
        driver::{Driver, Pool},
        groups,
    },
    runtime::{
        clock::Clock,
        memory,
        supervise::{Detached, Supervisor},
    },
    sandbox::recovery,
};

/// The number of changes on the host that can be queued for the pool.
const HOST_NEWS: usize = 16;

impl Node {
    /// Starts the pool with the state on which record and kernel agree. EC2's list arrives later.
    pub(super) async fn start_pool(
        &self,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Result<Pool, DaemonError> {
        let (kind, placement) = (self.kind.clone(), self.placement.clone());
        let planner = Planner::new(self.config.pool.clone(), kind, placement, seed(&self.boot));
        let (executor, host) = (self.executor.clone(), self.host.clone());
        let (pool, driver) = Driver::new(planner, executor, host, detached.clone(), Clock::Boot);
        let driver = driver
            .with_journal(self.store.clone())
            .with_history(self.recorder.history.clone());
        let kept = checkpoint::keep(driver.kept(), pool.clone(), self.store.clone());
        supervisor.critical("checkpoint", kept);
        // If the store panics on a corrupt page, it would refuse every ADD; a restart moves the file aside.
        supervisor.critical("store", self.store.ended());
        supervisor.critical("datapath", self.host.ended());
        supervisor.critical("pool", driver.run());
        self.follow_vpc(supervisor);
        for (address, until) in self.agreed.left_empty() {
            self.host.stale_connections().left(address, until);
        }
        supervisor.restarted("memory", memory::give_back);
        supervisor.critical("conntrack", self.host.stale_connections().clone().run());
        self.restore(&pool).await?;
        self.follow_ec2(&pool, supervisor);
        self.follow_kubernetes(&pool, supervisor);
        self.check_other_programs(supervisor);
        Ok(pool)
    }

    /// Follows the VPC's CIDR blocks. IPv6 pods are not translated, so their nodes do not need them.
    fn follow_vpc(&self, supervisor: &mut Supervisor) {
        let follower = Follower {
            imds: self.imds.clone(),
            settings: self.config.egress.clone(),
            me: self.me.clone(),
            host: self.host.clone(),
            store: self.store.clone(),
            known: self.vpc_blocks.clone(),
        };
        if self.config.pool.family == Family::V4 {
            supervisor.critical("vpc blocks", follower.run());
        }
    }

    /// Tells the pool which addresses the host and the pods have, before it can grant any.
    async fn restore(&self, pool: &Pool) -> Result<(), DaemonError> {
        let claims = self.host.claims().await;
        let claims = claims.map_err(recovery::RecoveryError::from)?;
        let restored = &self.agreed.restored;
        let enis = restored.enis.iter().map(|eni| eni.eni.clone());
        let of_pods = restored.assigned.iter().map(|(.., eni)| eni.clone());
        let configured = self.host.eni_addresses().await;
        let configured = configured.map_err(recovery::RecoveryError::from)?;
        self.executor.keep(enis.chain(of_pods), configured);
        self.executor.host_has(&claims);
        pool.tell(Event::HostClaims(claims)).await;
        self.host.warn_of_mark_conflicts().await;
        if self.config.egress.other_family {
            other_family::warn(self.config.pool.family.other());
        }
        pool.tell(Event::Restore(restored.clone())).await;
        Ok(())
    }

    /// Lists the ENIs, and looks what became of those that the previous process was creating.
    fn follow_ec2(&self, pool: &Pool, supervisor: &mut Supervisor) {
        let serving = !self.agreed.restored.enis.is_empty();
        let (executor, told) = (self.executor.clone(), pool.clone());
        supervisor.restarted("EC2 discovery", move || {
            discovery::run(executor.clone(), told.clone(), serving)
        });
        if self.intents.is_empty() {
            return;
        }
        let (executor, told) = (self.executor.clone(), pool.clone());
        let (intents, store) = (self.intents.clone(), self.store.clone());
        supervisor.restarted("intents", move || {
            let (executor, told) = (executor.clone(), told.clone());
            discovery::settle(executor, told, intents.clone(), store.clone())
        });
    }

    /// Reads this node's Node and ENIConfig, and writes to the Node what operators need to know.
    fn follow_kubernetes(&self, pool: &Pool, supervisor: &mut Supervisor) {
        let (settings, told) = (self.config.kubernetes.clone(), pool.clone());
        let (custom, (registered, uid)) = (self.custom_networking(), watch::channel(None));
        supervisor.restarted("Node follower", move || {
            kube::follow(
                settings.clone(),
                custom.clone(),
                registered.clone(),
                told.clone(),
            )
        });
        let (settings, told) = (self.config.kubernetes.clone(), pool.clone());
        let directory = self.config.paths.cni_conf_dir.clone();
        supervisor.restarted("Node reporter", move || {
            let directory = directory.clone();
            let announced = directory.map(|directory| move || announced(&directory));
            kube::report(settings.clone(), announced, uid.clone(), told.clone())
        });
    }

    /// Looks for filters and marks of other programs that harm pods.
    fn check_other_programs(&self, supervisor: &mut Supervisor) {
        let (family, marks) = (self.config.pool.family, self.config.egress.marks);
        let prefix = self.config.network.veth_prefix.clone();
        let metrics = self.recorder.metrics.clone();
        supervisor.restarted("filter check", move || {
            forwarding::watch(family, prefix.clone(), marks, metrics.clone())
        });
        // The pods of an IPv6 node need no marks.
        if family == Family::V4 {
            let metrics = self.recorder.metrics.clone();
            supervisor.restarted("mark check", move || {
                marks_in_transit::watch(marks, metrics.clone())
            });
        }
    }

    fn custom_networking(&self) -> Option<kube::CustomNetworking> {
        let PodSubnets::Custom(keys) = &self.config.pod_subnets else {
            return None;
        };
        Some(kube::CustomNetworking {
            keys: keys.clone(),
            known: self.placement.class.clone(),
        })
    }

    /// Starts the drift repair of the node's network. The result is notified when a pod's link is removed.
    pub(super) fn watch(
        &mut self,
        pool: &Pool,
        supervisor: &mut Supervisor,
        detached: &Detached,
    ) -> Arc<Notify> {
        let (ended, ask) = (Arc::<Notify>::default(), Arc::<Notify>::default());
        let (news, received) = mpsc::channel(HOST_NEWS);
        let follow =
            discovery::follow_host(received, self.executor.clone(), ask.clone(), pool.clone());
        supervisor.critical("host news", follow);
        let watch = DriftRepair {
            host: self.host.clone(),
            news,
            metrics: self.recorder.metrics.clone(),
            detached: detached.clone(),
            ended: ended.clone(),
            ask: ask.clone(),
        };
        if let Some(host_changes) = self.host_changes.take() {
            supervisor.critical("drift repair", watch.run(host_changes));
        }
        // In custom networking ENIs keep the groups that they were created with.
        if !matches!(self.config.pod_subnets, PodSubnets::Custom(_)) {
            let (imds, mac, ask) = (self.imds.clone(), self.me.mac, ask.clone());
            supervisor.restarted("security groups", move || {
                groups::follow(imds.clone(), mac, ask.clone())
            });
        }
        let (executor, told) = (self.executor.clone(), pool.clone());
        supervisor.restarted("unknown ENIs", move || {
            discovery::follow_enis(ask.clone(), executor.clone(), told.clone())
        });
        ended
    }
}

/// What the runtime knows of this network, by the directory of its configurations.
fn announced(directory: &Path) -> Announced {
    if !directory.join(conflist::NAME).exists() {
        return Announced::No;
    }
    // A directory that cannot be read has been reported.
    match conflist::rival(directory) {
        Ok(Some(name)) => Announced::Behind(name.display().to_string()),
        _ => Announced::Yes,
    }
}

/// Different for each node and start, so that the back-offs and ClientTokens of a fleet do not coincide.
fn seed(boot: &str) -> u64 {
    use std::hash::{BuildHasher, Hasher, RandomState};
    let mut hasher = RandomState::new().build_hasher();
    hasher.write(boot.as_bytes());
    hasher.finish()
}
