//! The settings that are only in `/proc/sys`. The files belong to the calling thread's namespace.

use std::fs;
use std::io::ErrorKind;

use super::error::HostError;
use crate::netlink::link::InetConf;

const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const RP_FILTER_ALL: &str = "/proc/sys/net/ipv4/conf/all/rp_filter";

/// Enables IPv4 forwarding if it is disabled. On most nodes it is enabled by the kubelet and the container runtime. The
/// file is read first, because an unprivileged container may read it but not write it. Returns whether it was disabled.
pub(super) fn ensure_forwarding() -> Result<bool, HostError> {
    if read(FORWARD)? == "1" {
        return Ok(false);
    }
    fs::write(FORWARD, "1").map_err(|source| HostError::ForwardingOff { source })?;
    Ok(true)
}

/// Whether the global setting turns the strict source check of every device into a loose one: the kernel uses the
/// larger value.
pub(super) fn source_check_is_loose() -> Result<bool, HostError> {
    match read(RP_FILTER_ALL) {
        Ok(value) => Ok(value == "2"),
        // The file is hidden by a sandbox. In this case the check is enabled, which costs a lookup that may be
        // unnecessary.
        Err(HostError::Sysctl { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
            Ok(true)
        }
        Err(e) => Err(e),
    }
}

/// Whether the kernel supports IPv6 at all.
pub(super) fn has_ipv6() -> bool {
    fs::exists("/proc/sys/net/ipv6").unwrap_or(true)
}

/// The settings that the kernel gives to new links, of those that pods' links have changed.
pub(super) fn link_defaults() -> Result<Vec<(InetConf, u32)>, HostError> {
    let settings = [
        (
            InetConf::RpFilter,
            "/proc/sys/net/ipv4/conf/default/rp_filter",
        ),
        (
            InetConf::AcceptRedirects,
            "/proc/sys/net/ipv4/conf/default/accept_redirects",
        ),
        (
            InetConf::SendRedirects,
            "/proc/sys/net/ipv4/conf/default/send_redirects",
        ),
        (
            InetConf::Forwarding,
            "/proc/sys/net/ipv4/conf/default/forwarding",
        ),
    ];
    let one = |(setting, path)| Ok((setting, read(path)?.parse().unwrap_or_default()));
    settings.map(one).into_iter().collect()
}

fn read(path: &'static str) -> Result<String, HostError> {
    let text = fs::read_to_string(path).map_err(|source| HostError::Sysctl { path, source })?;
    Ok(text.trim().to_owned())
}
