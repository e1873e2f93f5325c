//! The addresses that the host keeps from pods, and since when the daemon knows.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;
use planner::HostClaim;
use tokio::sync::mpsc;

/// A grant may overlap with the kernel's notification.
const HEARD: Duration = Duration::from_millis(5);

/// All claims, as the daemon is told them.
pub type Told = Vec<(IpNet, HostClaim)>;

/// See the module.
#[derive(Debug, Default)]
pub struct Claims {
    held: BTreeMap<IpAddr, (HostClaim, Duration)>,
    monitor: Option<mpsc::UnboundedSender<Told>>,
}

impl Claims {
    /// What a daemon finds at its start, and the receiver for later changes.
    pub fn watch(&mut self) -> (Told, mpsc::UnboundedReceiver<Told>) {
        let (monitor, changes) = mpsc::unbounded_channel();
        self.monitor = Some(monitor);
        (self.all(), changes)
    }

    pub fn put(&mut self, address: IpAddr, claim: HostClaim, now: Duration) {
        self.held.insert(address, (claim, now));
        self.tell();
    }

    /// Ends the claim on the `n`th address.
    pub fn drop_one(&mut self, n: usize) {
        let address = self.held.keys().nth(n).copied();
        if let Some(address) = address {
            self.held.remove(&address);
            self.tell();
        }
    }

    pub fn drop_all(&mut self) {
        self.held.clear();
        self.tell();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.keys().copied()
    }

    /// Whether the daemon knows that no pod must get the address.
    #[must_use]
    pub fn keeps(&self, address: IpAddr, now: Duration) -> bool {
        let known = self.held.get(&address);
        known.is_some_and(|(_, since)| *since + HEARD <= now)
    }

    fn all(&self) -> Told {
        let all = self.held.iter();
        all.map(|(address, (claim, _))| (IpNet::from(*address), *claim))
            .collect()
    }

    fn tell(&self) {
        if let Some(monitor) = &self.monitor {
            monitor.send(self.all()).ok(); // A daemon that has just died receives nothing.
        }
    }
}
