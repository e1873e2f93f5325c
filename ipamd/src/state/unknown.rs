//! The key of a record whose sandbox is not known.

use planner::Sandbox;

/// The network's name in records of links whose sandbox is not known. No real network can have it: names hold no
/// parentheses (CNI specification).
const UNKNOWN: &str = "(unknown)";

/// The key under which a link of this name is kept while its sandbox is not known.
#[must_use]
pub fn unknown(host_name: &str) -> Sandbox {
    Sandbox {
        network: UNKNOWN.to_owned(),
        container_id: host_name.to_owned(),
        ifname: String::new(),
    }
}
