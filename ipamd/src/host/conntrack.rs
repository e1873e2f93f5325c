//! Deletes the connection tracking entries of deleted pods before their addresses are used again.
//!
//! This happens late in the cooldown of an address and not in the DEL of its pod: clients of a service keep sending to
//! a pod until the service's endpoints are updated, and each of their packets would create an entry again. One read of
//! the table serves all addresses with at least half of their cooldown over, so churn costs one read per half a
//! cooldown, on a thread that delays no ADD. An ADD waits only if it gets an address that is not done yet.
//!
//! Connections to host ports are deleted when the port leads elsewhere. No ADD or DEL waits for this. It happens a moment later,
//! while the pod's containers are created, so that one read serves all pods that come and go meanwhile.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use datapath::{
    conntrack::Conntrack,
    netlink::{self, Family, Socket},
};
use nettypes::{HostPort, Transport};
use planner::Mono;
use proto::error_chain::chain;
use tokio::sync::Notify;

use crate::runtime::{clock, worker::Worker};

/// How long before the end of a cooldown the connections are deleted at the latest; for a short cooldown, a quarter of
/// it. Several addresses should be due together, because a read walks the kernel's whole table and takes 3 ms of a
/// processor that starting pods need.
const LEAD: Duration = Duration::from_secs(2);

/// How long after a UDP port leads elsewhere its connections are deleted.
const SOON: Duration = Duration::from_millis(250);

/// Why connection tracking could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    #[error("no netlink socket for connection tracking")]
    Socket(#[from] netlink::Error),
    #[error("no thread could be started")]
    Thread(#[from] io::Error),
}

/// When the connections of an address are to be deleted: not before, and not later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    opens: Mono,
    closes: Mono,
}

impl Window {
    fn of(left: Mono, until: Mono) -> Self {
        let rest = until.since(left);
        Self {
            opens: left + rest / 2,
            closes: left + rest.saturating_sub(LEAD.min(rest / 4)),
        }
    }
}

/// Addresses without a pod that still have its connections.
#[derive(Debug, Default)]
struct Stale(BTreeMap<IpAddr, Window>);

impl Stale {
    fn due(&self) -> Option<Mono> {
        self.0.values().map(|window| window.closes).min()
    }

    fn ripe(&self, now: Mono) -> BTreeMap<IpAddr, Window> {
        let ripe = self.0.iter().filter(|(_, window)| window.opens <= now);
        ripe.map(|(address, window)| (*address, *window)).collect()
    }

    /// Those that have not lost another pod in the meantime.
    fn done(&mut self, done: &BTreeMap<IpAddr, Window>) {
        self.0
            .retain(|address, window| done.get(address) != Some(window));
    }
}

/// UDP ports of the node that lead elsewhere than before, with the pods to which they lead now.
type Moved = BTreeMap<u16, BTreeSet<IpAddr>>;

/// See the module. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct StaleConnections {
    /// Of pods, and so of their host ports.
    family: Family,
    table: Worker<Conntrack>,
    stale: Arc<Mutex<Stale>>,
    moved: Arc<Mutex<Moved>>,
    changed: Arc<Notify>,
}

impl StaleConnections {
    /// Opens a socket in the namespace of the calling thread.
    ///
    /// # Errors
    /// [`ConntrackError`] if socket or thread cannot be had.
    pub fn start(family: Family) -> Result<Self, ConntrackError> {
        Ok(Self {
            family,
            table: Worker::start("conntrack", Conntrack::open()?)?,
            stale: Arc::default(),
            moved: Arc::default(),
            changed: Arc::default(),
        })
    }

    /// An address has lost its pod, and is in cooldown until `until`.
    pub fn left(&self, address: impl Into<IpAddr>, until: Mono) {
        let window = Window::of(clock::now(), until);
        let mut stale = self.stale.lock().expect("no holder panics");
        stale.0.insert(address.into(), window);
        drop(stale);
        self.changed.notify_one();
    }

    /// Await this before an address is given to a pod. It waits only in a full pool without cooldown.
    pub async fn settle(&self, address: impl Into<IpAddr>) {
        let address = address.into();
        let window = {
            let stale = self.stale.lock().expect("no holder panics");
            stale.0.get(&address).copied()
        };
        if let Some(window) = window {
            self.forget([(address, window)].into()).await;
        }
    }

    /// These ports lead to a pod with this address now. Soon their connections to elsewhere are deleted.
    pub fn opened(&self, ports: &[HostPort], pod: IpAddr) {
        self.change(ports, |pods| {
            pods.insert(pod);
        });
    }

    /// These ports no longer lead to the pod with this address. Soon their connections to it are deleted.
    pub fn closed(&self, ports: &[HostPort], pod: IpAddr) {
        self.change(ports, |pods| {
            pods.remove(&pod);
        });
    }

    fn change(&self, ports: &[HostPort], change: impl Fn(&mut BTreeSet<IpAddr>)) {
        let udp = ports.iter().filter(|port| port.transport == Transport::Udp);
        let mut udp = udp.map(|port| port.port).peekable();
        if udp.peek().is_some() {
            let mut moved = self.moved.lock().expect("no holder panics");
            udp.for_each(|port| change(moved.entry(port).or_default()));
            drop(moved);
            self.changed.notify_one();
        }
    }

    fn has_moved(&self) -> bool {
        !self.moved.lock().expect("no holder panics").is_empty()
    }

    /// Deletes the connections to ports that lead elsewhere at once: for a daemon that stops.
    pub async fn forget_moved(&self) {
        if !self.has_moved() {
            return;
        }
        let ports = std::mem::take(&mut *self.moved.lock().expect("no holder panics"));
        let (count, family) = (ports.len(), self.family);
        let forgotten = move |table: &mut Conntrack| {
            let own = Socket::open()?.addresses(family, None)?;
            table.forget_udp(&ports, &own.iter().map(|own| own.address).collect())
        };
        match self.table.run(forgotten).await {
            Ok(Ok(connections)) => {
                tracing::debug!(connections, "deleted connections to host ports");
            }
            // Clients with old connections wait until these expire.
            Ok(Err(error)) => tracing::warn!(
                error = chain(&error),
                ports = count,
                "could not delete the connections to host ports"
            ),
            Err(gone) => tracing::error!(error = chain(&gone), "connections are not deleted"),
        }
    }

    /// Deletes connections forever, each address at its time.
    pub async fn run(self) {
        loop {
            let changed = self.changed.notified();
            if self.has_moved() {
                tokio::time::sleep(SOON).await;
                self.forget_moved().await;
            }
            let now = clock::now();
            let due = self.stale.lock().expect("no holder panics").due();
            // Both arms are cancel-safe: a notification that is not awaited is kept.
            tokio::select! {
                () = changed => continue,
                () = tokio::time::sleep(due.map_or(Duration::MAX, |at| at.since(now))) => {}
            }
            let ripe = self
                .stale
                .lock()
                .expect("no holder panics")
                .ripe(clock::now());
            self.forget(ripe).await;
        }
    }

    async fn forget(&self, addresses: BTreeMap<IpAddr, Window>) {
        let wanted: BTreeSet<IpAddr> = addresses.keys().copied().collect();
        match self.table.run(move |table| table.forget(&wanted)).await {
            Ok(Ok(0)) => {}
            Ok(Ok(connections)) => {
                tracing::debug!(connections, "deleted connections of deleted pods");
            }
            // A pod with old connections is better than no pod.
            Ok(Err(error)) => tracing::warn!(
                error = chain(&error),
                addresses = addresses.len(),
                "could not delete the connections of deleted pods"
            ),
            Err(gone) => tracing::error!(error = chain(&gone), "connections are not deleted"),
        }
        let mut stale = self.stale.lock().expect("no holder panics");
        stale.done(&addresses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Mono {
        Mono::ZERO + SECOND * seconds
    }

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn one_reading_serves_all_whose_rest_is_half_over() {
        let mut stale = Stale::default();
        for (address, left) in [(1, 0), (2, 10), (3, 20)] {
            let window = Window::of(at(left), at(left + 30));
            stale.0.insert(ip(address), window);
        }
        assert_eq!(
            stale.due(),
            Some(at(28)),
            "two seconds before the first may be granted"
        );
        let ripe = stale.ripe(at(28));
        assert_eq!(ripe.keys().copied().collect::<Vec<_>>(), [ip(1), ip(2)]);
        stale.done(&ripe);
        assert_eq!(stale.due(), Some(at(48)));
    }

    #[test]
    fn without_a_cooldown_it_is_time_at_once() {
        let mut stale = Stale::default();
        stale.0.insert(ip(1), Window::of(at(5), at(5)));
        assert_eq!((stale.due(), stale.ripe(at(5)).len()), (Some(at(5)), 1));
        stale.0.insert(ip(1), Window::of(at(5), at(6)));
        assert!(stale.due() <= Some(at(6)));
        assert_eq!(stale.ripe(at(6)).len(), 1, "what is due is ripe");
    }

    #[test]
    fn of_a_short_rest_too_one_reading_serves_several() {
        let mut stale = Stale::default();
        for n in 0..10_u8 {
            let left = at(0) + SECOND / 50 * u32::from(n);
            stale.0.insert(ip(n), Window::of(left, left + SECOND));
        }
        let due = stale.due().unwrap();
        assert_eq!(due, at(0) + SECOND * 3 / 4);
        assert_eq!(stale.ripe(due).len(), 10);
    }

    #[test]
    fn an_address_that_lost_another_pod_meanwhile_is_not_done() {
        let mut stale = Stale::default();
        stale.0.insert(ip(1), Window::of(at(0), at(30)));
        let ripe = stale.ripe(at(28));
        stale.0.insert(ip(1), Window::of(at(29), at(59)));
        stale.done(&ripe);
        assert_eq!(stale.0.len(), 1);
    }
}
