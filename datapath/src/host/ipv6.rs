//! A node with IPv6 pods: forwarding, the rule for local pods, and the check of source addresses.
//!
//! All pods' addresses are on the primary ENI, which main routes, so no ENI needs a table, a mark or a rule. Nothing is
//! translated, so connections need no marks.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;

use super::error::{During, HostError};
use super::{link as eni_link, rules};
use crate::constants::{PODS_TABLE, RULE_PODS};
use crate::netlink::addr::Address;
use crate::netlink::link::Link;
use crate::netlink::rule::Rule;
use crate::netlink::{Family, Kind, Socket};

/// All of it except nftables. `primary` is the primary ENI's link.
pub(super) fn ensure(socket: &mut Socket, primary: &Link, mtu: u32) -> Result<(), HostError> {
    if ensure_settings(&primary.name)? {
        socket.count(Kind::Setting);
    }
    eni_link::ensure(socket, primary, mtu)?;
    let pods = Rule::all(Family::V6, RULE_PODS, PODS_TABLE);
    let present = socket.rules(Family::V6).during("look at rules")?;
    rules::diff(&present, &[pods], |r| r.priority == RULE_PODS).apply(socket)
}

/// The source address of the node's own packets to pods: of the primary ENI's global addresses, the one that was
/// configured first, because VIPs come later. The kernel lists the newest first.
pub(super) fn primary_address(on_primary: &[Address]) -> Option<IpAddr> {
    let global = |address: &&Address| match address.address {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_loopback() && !ip.is_multicast(),
    };
    let mut usable = on_primary.iter().filter(global).filter(|a| a.stable);
    usable.next_back().map(|a| a.address)
}

/// A host that forwards is a router, and a router ignores router advertisements by default. When forwarding is enabled,
/// the kernel removes a default route that it learned from advertisements, unless `accept_ra` is 2. So `accept_ra` is
/// set first. A value of 0 means that the route was set manually, or that another program handles advertisements. The
/// default for new links applies to pods' links. Returns whether anything was changed.
fn ensure_settings(primary: &str) -> Result<bool, HostError> {
    let mut changed = false;
    for links in ["all", "default", primary] {
        changed |= set(&format!("{links}/disable_ipv6"), "0")?;
    }
    let accept_ra = format!("{primary}/accept_ra");
    if read(&accept_ra)? == "1" {
        changed |= set(&accept_ra, "2")?;
    }
    for links in ["all", "default"] {
        changed |= set(&format!("{links}/forwarding"), "1")?;
    }
    Ok(changed)
}

/// Enables IPv6 on pods' links, as a router. Returns how many settings were changed.
pub(super) fn ensure_pod_links<'a>(
    links: impl Iterator<Item = &'a Link>,
) -> Result<usize, HostError> {
    let mut changed = 0;
    for link in links {
        let Some(conf) = link.ipv6 else { continue };
        let wrong = [
            (conf.disabled, "disable_ipv6", "0"),
            (!conf.forwarding, "forwarding", "1"),
        ];
        for (_, setting, right) in wrong.iter().filter(|(wrong, ..)| *wrong) {
            match set(&format!("{}/{setting}", link.name), right) {
                Ok(was_wrong) => changed += usize::from(was_wrong),
                // The link was deleted in the meantime, with its pod.
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(changed)
}

fn is_gone(error: &HostError) -> bool {
    let (HostError::NoIpv6 { source, .. } | HostError::Setting { source, .. }) = error else {
        return false;
    };
    source.kind() == ErrorKind::NotFound
}

/// Returns whether it was changed. The file is read first, because an unprivileged container may read these files but
/// not write them.
fn set(name: &str, value: &'static str) -> Result<bool, HostError> {
    if read(name)? == value {
        return Ok(false);
    }
    let written = fs::write(path(name), value).map(|()| true);
    written.map_err(|source| HostError::Setting {
        path: path(name),
        value,
        source,
    })
}

fn read(name: &str) -> Result<String, HostError> {
    match fs::read_to_string(path(name)) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(source) => Err(HostError::NoIpv6 {
            path: path(name),
            source,
        }),
    }
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/ipv6/conf/{name}")
}
