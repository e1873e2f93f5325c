//! Removes everything that Hawser made in the host's network namespace.

use super::{During, HostError, nft, rules};
use crate::constants::{GROUP_BASE, GROUP_DYING, PROTOCOL};
use crate::netlink::{Error, Family, Socket, link, route};

/// Removes rules, routes, nftables and the links of pods that are still there. The calling thread must be in the
/// socket's namespace. Settings of devices stay: their earlier values are not known.
///
/// # Errors
/// [`HostError`]; a repetition removes the rest.
pub fn uninstall(socket: &mut Socket) -> Result<(), HostError> {
    for family in [Family::V4, Family::V6] {
        // Rules first: no packet is sent to a table that is already empty.
        rules::remove(socket, family, |_| true)?;
        remove_routes(socket, family).during("remove routes")?;
    }
    for group in GROUP_BASE..=GROUP_DYING {
        match socket.apply(&link::del_group(group)) {
            Err(error) if !error.is_gone() => return Err(error).during("remove pods' links"),
            _ => {}
        }
    }
    nft(socket)?.remove().during("remove nftables")
}

fn remove_routes(socket: &mut Socket, family: Family) -> Result<(), Error> {
    let mut routes = socket.routes(family, None)?;
    routes.retain(|route| route.protocol == PROTOCOL);
    // Default routes first: their gateway is reached by another route.
    routes.sort_by_key(|route| route.dst.prefix_len());
    let requests: Vec<_> = routes.iter().map(route::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}
