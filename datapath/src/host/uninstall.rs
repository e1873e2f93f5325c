//! Removes everything that Hawser made in the host's network namespace, or hands its pods back to the AWS VPC CNI.
//!
//! May use the rest of `host`, `pod` and `netlink`. Must not know what the AWS VPC CNI records.

mod handback;

use super::error::{During, HostError};
use super::node::nft;
use super::rules;
use crate::constants::{GROUP_BASE, GROUP_DYING, GROUP_ENI, GROUP_INDEX_MASK, PROTOCOL};
use crate::netlink::link::{self, Change};
use crate::netlink::route::{self, LOCAL, MAIN};
use crate::netlink::{Error, Family, Socket};

pub use handback::{HandedBack, let_go, restore_classic};

/// Removes rules, routes, nftables and the links of pods that are still there. The calling thread must be in the
/// socket's namespace. Settings of devices stay: their earlier values are not known.
///
/// # Errors
/// [`HostError`]; a repetition removes the rest.
pub fn uninstall(socket: &mut Socket) -> Result<(), HostError> {
    remove_routing(socket)?;
    let pods = (0..=GROUP_INDEX_MASK).map(|index| GROUP_BASE + index);
    for group in pods.chain([GROUP_DYING]) {
        match socket.apply(&link::del_group(group)) {
            Err(error) if !error.is_gone() => return Err(error).during("remove pods' links"),
            _ => {}
        }
    }
    release_enis(socket).during("take the ENIs out of their group")?;
    nft(socket)?.remove().during("remove nftables")
}

fn remove_routing(socket: &mut Socket) -> Result<(), HostError> {
    for family in [Family::V4, Family::V6] {
        // Rules first: no packet is sent to a table that is already empty.
        let present = socket.rules(family).during("look at rules")?;
        rules::diff(&present, &[], |_| true).apply(socket)?;
        remove_routes(socket, family).during("remove routes")?;
    }
    Ok(())
}

fn release_enis(socket: &mut Socket) -> Result<(), Error> {
    let mut links = socket.links()?;
    links.retain(|link| link.group == GROUP_ENI);
    let ungrouped = Change {
        group: Some(0),
        ..Change::default()
    };
    let requests: Vec<_> = links
        .iter()
        .map(|l| link::set(l.index, &ungrouped))
        .collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

fn remove_routes(socket: &mut Socket, family: Family) -> Result<(), Error> {
    let mut routes = socket.routes(family, None)?;
    // We have none in these.
    routes.retain(|r| r.protocol == PROTOCOL && ![MAIN, LOCAL].contains(&r.table));
    // Default routes first: their gateway is reached by another route.
    routes.sort_by_key(|route| route.dst.prefix_len());
    let requests: Vec<_> = routes.iter().map(route::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}
