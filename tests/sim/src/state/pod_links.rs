//! The links of pods in the simulated kernel. They outlive every daemon.

use std::collections::BTreeMap;

use datapath::pod::{HostSide, PodLink};
use planner::Sandbox;

/// Pod links by name, and the running pods.
#[derive(Debug, Default)]
pub struct Kernel {
    pub links: BTreeMap<String, HostSide>,
    /// Pods that got their address, and the name of their link. Until their DEL is requested, the route must not be
    /// removed (I10), nor the record (I6).
    pub running: BTreeMap<Sandbox, String>,
    /// Sandboxes whose DEL was answered: nothing of them may reappear (I7).
    pub deleted: Vec<Sandbox>,
    made: u32,
}

impl Kernel {
    pub fn make(&mut self, link: &PodLink) {
        self.made += 1;
        let side = HostSide {
            ifindex: self.made,
            name: link.host_name.clone(),
            uplink: link.uplink,
            mac: Some(link.host_mac),
            address: None,
        };
        self.links.insert(link.host_name.clone(), side);
    }
}
