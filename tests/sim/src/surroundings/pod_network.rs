//! The kernel for pods: links that a daemon creates step by step, and that outlive it however it ends.

use std::{
    future::{Future, pending},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use datapath::pod::{HostSide, PodLink, PodRef, Wiring};
use ipamd::host::seam::{PodHost, WireError};
use planner::{EniId, Sandbox};
use proto::handover::Handed;
use tokio::time::sleep;

use crate::{
    faults::Fault,
    oracle,
    state::{Shared, State, ledger::Held},
};

/// One netlink batch.
const BATCH: Duration = Duration::from_millis(1);
/// The kernel's grace period when a link is removed.
const GRACE: Duration = Duration::from_millis(16);

/// One daemon's access to the kernel.
#[derive(Clone, Debug)]
pub struct PodNetwork {
    pub shared: Arc<Shared>,
    pub generation: u64,
}

impl PodNetwork {
    /// The kernel does it between two points at which the daemon may die.
    async fn step<T: Send>(
        &self,
        name: &'static str,
        change: impl FnOnce(&mut State, Duration) -> T + Send,
    ) -> T {
        sleep(BATCH).await;
        self.pass(name, "pending").await;
        let made = self.shared.with(change);
        self.pass(name, "done").await;
        made
    }

    async fn pass(&self, name: &'static str, when: &'static str) {
        if self
            .shared
            .point(self.generation, || format!("{name} {when}"))
        {
            pending().await
        }
    }

    fn refuses(&self) -> bool {
        self.shared.with(|state, now| {
            let refuses = state.strikes(Fault::WireFails, now);
            if refuses {
                state.count(Fault::WireFails, now);
            }
            refuses
        })
    }

    fn in_use(&self, address: IpAddr) -> bool {
        self.shared.with(|state, _| {
            let mut links = state.kernel.links.values();
            links.any(|link| link.address == Some(address))
        })
    }

    fn drop_link(&self, index: u32) {
        self.shared
            .with(|state, _| drop(state.kernel.links.remove(&index)));
    }
}

impl PodHost for PodNetwork {
    async fn wire(&self, link: PodLink, _: Handed) -> Result<Wiring, WireError> {
        let index = self.step("veth", |state, _| state.kernel.make(&link)).await;
        self.step("pod side", |_, _| {}).await;
        if self.refuses() {
            self.drop_link(index);
            return Err(WireError::Kernel("no".into()));
        }
        if self.in_use(link.address) {
            self.drop_link(index);
            return Err(WireError::AddressInUse(link.address));
        }
        self.shared.with(|state, now| state.lend(&link, now));
        self.step("host route", |state, now| state.route(index, &link, now))
            .await;
        Ok(Wiring {
            host_index: index,
            pod_index: 2,
            host_name: link.host_name,
            contested: false,
            secondary: false,
            egress: link.egress,
        })
    }

    async fn unwire(
        &self,
        pod: PodRef,
    ) -> (
        Result<(), WireError>,
        impl Future<Output = ()> + Send + use<>,
    ) {
        let index = pod.host_index;
        self.step("unroute", |state, now| state.unroute(index, now))
            .await;
        (Ok(()), self.remove_link(index))
    }

    fn remove_link(&self, index: u32) -> impl Future<Output = ()> + Send + use<> {
        let me = self.clone();
        async move {
            sleep(GRACE).await;
            me.step("unlink", |state, _| drop(state.kernel.links.remove(&index)))
                .await;
        }
    }

    async fn name_of(&self, index: u32) -> Option<String> {
        let found = |state: &mut State| state.kernel.links.get(&index).map(|l| l.name.clone());
        self.shared.with(|state, _| found(state))
    }

    async fn check(&self, _: PodLink, _: u32, _: Handed) -> Result<Vec<String>, WireError> {
        Ok(Vec::new())
    }

    async fn list(&self) -> Result<Vec<HostSide>, WireError> {
        Ok(self
            .shared
            .with(|state, _| state.kernel.links.values().cloned().collect()))
    }
}

/// The ledger's name for the sandbox of a link.
fn behind(link: u32) -> Sandbox {
    Sandbox {
        network: "kernel".to_owned(),
        container_id: link.to_string(),
        ifname: String::new(),
    }
}

impl State {
    /// The daemon knows better than to lend an address for the other family twice, also after a crash.
    fn lend(&mut self, link: &PodLink, now: Duration) {
        let mut links = self.kernel.links.values();
        let holder = links.find(|held| link.egress.is_some() && held.egress == link.egress);
        if let Some(holder) = holder {
            let what = format!("{:?} for {} is {}'s", link.egress, link.owner, holder.name);
            self.fail(
                now,
                "I1: an address belongs to at most one live sandbox",
                what,
            );
        }
    }

    /// From now on the pod has its address: I1, I2 and I3 must be true.
    fn route(&mut self, index: u32, link: &PodLink, now: Duration) {
        let owner = self.world.owner_of(link.address);
        let eni = owner.map_or_else(|| EniId::from("eni-none"), |eni| EniId(eni.id.0.clone()));
        let (sandbox, address) = (behind(index), link.address);
        oracle::granted(self, &sandbox, address, &eni, now);
        let held = Held {
            address,
            eni,
            gone: false,
        };
        self.ledger.live.insert(sandbox, held);
        let others = self
            .kernel
            .links
            .values()
            .filter(|other| other.ifindex != index);
        let mut open = others.flat_map(|other| &other.ports);
        let ports = &link.asked.ports;
        if let Some(port) = open.find(|port| ports.iter().any(|own| own.overlaps(port))) {
            let what = format!("{port} of {} leads to another pod too", link.owner);
            self.fail(now, "a host port leads to one pod", what);
        }
        if let Some(side) = self.kernel.links.get_mut(&index) {
            side.owner = Some(link.owner.clone());
            side.address = Some(address);
            side.egress = link.egress;
            side.ports.clone_from(ports);
        }
    }

    fn unroute(&mut self, link: u32, now: Duration) {
        if self.kernel.running.values().any(|index| *index == link) {
            let what = format!("the route of {link} was removed while its pod runs");
            self.fail(now, "I10: existing pods keep their traffic", what);
        }
        let until = now + self.scenario.config.cooldown;
        self.ledger.release(&behind(link), until);
        if let Some(side) = self.kernel.links.get_mut(&link) {
            side.address = None;
            side.egress = None;
            side.ports.clear();
        }
    }
}
