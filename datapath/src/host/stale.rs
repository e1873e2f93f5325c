//! What a former life left behind: rules of priorities that are no longer used, rules and tables of ENIs that are gone,
//! pod links that it was about to remove.
//!
//! Only what bears our protocol number is looked at. An ENI is gone when its table is empty: with its link went the
//! routes. (Of one whose routes somebody flushed, the rules go too; its pods had no way out anyhow, and get everything
//! back when it is set up again.)

use std::collections::BTreeSet;

use super::{During, HostError, rules};
use crate::constants::{
    GROUP_DYING, PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_PODS, RULE_PRIMARY,
};
use crate::netlink::link;
use crate::netlink::route::{self, MAIN};
use crate::netlink::rule;
use crate::netlink::{Family, Socket};

/// Removes it. To be called before anything is set up.
pub(super) fn remove(socket: &mut Socket) -> Result<(), HostError> {
    let what = "remove what a former life left";
    match socket.apply(&link::del_group(GROUP_DYING)) {
        Err(e) if !e.is_gone() => return Err(e).during(what),
        _ => {}
    }
    let mut routes = socket.routes(Family::V4, None).during(what)?;
    routes.retain(|r| r.protocol == PROTOCOL && r.table != PODS_TABLE && r.table != MAIN);
    let filled: BTreeSet<u32> = routes.iter().map(|r| r.table).collect();
    let mut ours = socket.rules(Family::V4).during(what)?;
    ours.retain(|r| r.protocol == PROTOCOL);
    let (stale, kept): (Vec<_>, Vec<_>) = ours.into_iter().partition(|r| match r.priority {
        RULE_PODS | RULE_PRIMARY => false,
        RULE_ENI | RULE_ENI_ADDRESS => !filled.contains(&r.table),
        _ => true,
    });
    let led_to: BTreeSet<u32> = kept.iter().map(|r| r.table).collect();
    let lost = routes.iter().filter(|r| !led_to.contains(&r.table));
    let mut requests: Vec<_> = stale.iter().map(rule::del).collect();
    requests.extend(lost.map(route::del));
    socket
        .batch(&requests)
        .and_then(rules::all_gone)
        .during(what)
}
