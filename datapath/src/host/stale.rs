//! What a previous process left behind: rules with priorities that are no longer used, rules and tables of removed
//! ENIs, pod links that it was about to remove.
//!
//! Only objects with our protocol number are checked. An ENI is gone if its table is empty, because its routes are
//! removed with its link. (If someone flushed the routes of an ENI, its rules are removed too. Its pods had no route
//! anyway, and get everything back when the ENI is configured again.)

use std::collections::BTreeSet;

use super::error::{During, HostError};
use super::rules;
use crate::constants::{
    GROUP_DYING, PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_HOST_RESUME,
    RULE_HOST_SKIP, RULE_NODE_LOCAL, RULE_PODS, RULE_PRIMARY,
};
use crate::netlink::link;
use crate::netlink::route::{self, MAIN};
use crate::netlink::rule;
use crate::netlink::{Family, Socket};

/// Removes all of it. Call this before anything is configured.
pub(super) fn remove(socket: &mut Socket) -> Result<(), HostError> {
    let what = "remove objects of a previous process";
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
        RULE_PODS | RULE_HOST_SKIP | RULE_NODE_LOCAL | RULE_PRIMARY | RULE_HOST_RESUME => false,
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
