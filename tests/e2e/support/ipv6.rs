//! Nodes in IPv6 mode, and pods on them.

use std::{net::IpAddr, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod},
};
use vpc_sim::SimConfig;

/// The time limit of an echo.
pub const LIMIT: Duration = Duration::from_secs(2);

pub const SIX: [(&str, &str); 4] = [
    ("ENABLE_IPv4", "false"),
    ("ENABLE_IPv6", "true"),
    ("ENABLE_PREFIX_DELEGATION", "true"),
    ("IP_COOLDOWN_PERIOD", "1"),
];

pub fn start() -> std::io::Result<Lab> {
    Lab::start(SimConfig::dual_stack())
}

pub fn pods(node: &Node, count: usize) -> std::io::Result<Vec<Pod>> {
    (0..count)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect()
}

pub fn own(node: &Node) -> IpAddr {
    node.instance.ipv6.expect("the lab's nodes have one").into()
}
