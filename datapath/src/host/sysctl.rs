//! The settings that only `/proc/sys` has. Files are those of the calling thread's namespace.

use std::fs;
use std::io::ErrorKind;

use super::HostError;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const RP_FILTER_ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// Switches IPv4 forwarding on, where it is off. Nodes have it on as a rule: kubelet and container runtimes see to it.
/// It is read first, because an unprivileged container may read the file and not write it. Says whether it was off.
pub(super) fn ensure_forwarding() -> Result<bool, HostError> {
    if read(FORWARD)? == "1" {
        return Ok(false);
    }
    fs::write(FORWARD, "1").map_err(|source| HostError::ForwardingOff { source })?;
    Ok(true)
}

/// Whether the machine-wide setting makes every device's strict source check a loose one: the kernel takes the larger.
pub(super) fn source_check_is_loose() -> Result<bool, HostError> {
    match read(RP_FILTER_ALL) {
        Ok(value) => Ok(value == "2"),
        // Hidden by a sandbox: then the check costs a look-up that may not be needed, and is certain.
        Err(HostError::Sysctl { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

/// Whether the kernel speaks IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(true)
}

fn read(path: &'static str) -> Result<String, HostError> {
    let text = fs::read_to_string(path).map_err(|source| HostError::Sysctl { path, source })?;
    Ok(text.trim().to_owned())
}
