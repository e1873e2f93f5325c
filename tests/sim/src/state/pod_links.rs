//! The links of pods in the simulated kernel. They outlive every daemon.

use std::collections::BTreeMap;

use datapath::pod::{HostSide, PodLink};
use planner::Sandbox;

/// Pod links by index, and the running pods.
#[derive(Debug, Default)]
pub struct Kernel {
    pub links: BTreeMap<u32, HostSide>,
    /// Pods that got their address, and the index of their link. Until their DEL is requested, the route must not be
    /// removed (I10), nor the record (I6).
    pub running: BTreeMap<Sandbox, u32>,
    /// Sandboxes whose DEL was answered: nothing of them may reappear (I7).
    pub deleted: Vec<Sandbox>,
    made: u32,
}

impl Kernel {
    /// Creates a link without a route and returns its index. An older link of the same pod gives its name up.
    pub fn make(&mut self, link: &PodLink) -> u32 {
        self.made += 1;
        let older = self.links.values_mut();
        for holder in older.filter(|holder| holder.name == link.host_name) {
            holder.name = format!("own{}", holder.ifindex);
        }
        let side = HostSide {
            ifindex: self.made,
            name: link.host_name.clone(),
            owner: None,
            uplink: link.uplink,
            mac: Some(link.host_mac),
            address: None,
            egress: None,
            ports: Vec::new(),
        };
        self.links.insert(self.made, side);
        self.made
    }
}
