//! The key of a record with an unknown sandbox.

use planner::Sandbox;

/// The network's name in records of links with an unknown sandbox. No real network can have it: names contain no
/// parentheses (CNI specification).
const UNKNOWN: &str = "(unknown)";

/// Whether it is the key of a link whose sandbox is unknown.
#[must_use]
pub fn is_unknown(sandbox: &Sandbox) -> bool {
    sandbox.network == UNKNOWN
}

/// The key for a link with this name while its sandbox is unknown.
#[must_use]
pub fn unknown(host_name: &str) -> Sandbox {
    Sandbox {
        network: UNKNOWN.to_owned(),
        container_id: host_name.to_owned(),
        ifname: String::new(),
    }
}
