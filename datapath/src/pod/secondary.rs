//! A further attachment of a pod (Multus): the pod has a default route already, by another interface of ours or of another
//! plugin, and keeps it.
//!
//! The new interface can be reached at its own address: packets from this address leave by the same interface, by a rule and a
//! table in the pod. Everything else stays as it is. The kernel removes the routes with the interface, but not the rule: DEL
//! removes it, if the runtime says where the pod is. A rule that is left over leads to an empty table and is removed by the
//! pod's next attachment.

use super::pod_link::{PodLink, attachment_table};
use crate::constants::{ATTACHMENT_TABLES, PROTOCOL, RULE_ATTACHMENT};
use crate::netlink::route::MAIN;
use crate::netlink::rule::Rule;
use crate::netlink::{Error, Family, Socket, route, rule};

/// The index of the first link after the loopback in a new namespace.
const FIRST: u32 = 2;

/// Whether the pod certainly or possibly has another interface. In most namespaces, the answer is free.
pub(super) fn may_be_secondary(pod_index: u32) -> bool {
    pod_index > FIRST
}

/// Whether the pod has a default route of any metric.
pub(super) fn has_default_route(pod: &mut Socket, family: Family) -> Result<bool, Error> {
    let routes = pod.routes(family, Some(MAIN))?;
    Ok(routes.iter().any(|r| r.dst == family.everything()))
}

/// The routes and the rule for packets from the attachment's own address.
pub(super) fn route_own_address(
    pod: &mut Socket,
    link: &PodLink,
    pod_index: u32,
) -> Result<(), Error> {
    let mut requests = Vec::new();
    for stale in stale_rules(pod, link)? {
        requests.push(rule::del(&stale));
    }
    let removals = requests.len();
    let routes = link.secondary_routes(pod_index);
    requests.extend(routes.iter().map(route::add));
    // Last: if it is there, everything is.
    requests.push(rule::add(&link.secondary_rule(pod_index)));
    let done = pod.batch(&requests)?.results.into_iter().skip(removals);
    let done: Result<(), Error> = done.collect();
    if done.is_err() {
        forget(pod, link, pod_index);
    }
    done
}

/// Removes the rule of an attachment that ends, in a pod that continues.
///
/// # Errors
/// The kernel's error. A missing rule is a success.
pub fn forget_attachment(pod: &mut Socket, link: &PodLink) -> Result<(), Error> {
    let mut rules = pod.rules(link.family())?;
    rules.retain(|rule| is_ours(rule) && rule.from == Some(link.address.into()));
    let requests: Vec<_> = rules.iter().map(rule::del).collect();
    let refused = pod
        .batch(&requests)?
        .results
        .into_iter()
        .filter_map(Result::err);
    let mut refused = refused.filter(|e| !e.is_gone());
    refused.next().map_or(Ok(()), Err)
}

fn is_ours(rule: &Rule) -> bool {
    rule.protocol == PROTOCOL && rule.priority == RULE_ATTACHMENT
}

/// Undoes the rule. The routes disappear with the interface.
pub(super) fn forget(pod: &mut Socket, link: &PodLink, pod_index: u32) {
    // If this fails too, the pod's next attachment removes it.
    drop(pod.apply(&rule::del(&link.secondary_rule(pod_index))));
}

/// Rules of attachments that have ended, and of an earlier one with this address.
fn stale_rules(pod: &mut Socket, link: &PodLink) -> Result<Vec<Rule>, Error> {
    let rules = pod.rules(link.family())?;
    let mut stale = Vec::new();
    for rule in rules.into_iter().filter(is_ours) {
        let index = rule.table.wrapping_sub(ATTACHMENT_TABLES);
        let earlier = rule.from == Some(link.address.into());
        if earlier || pod.link_by_index(index)?.is_none() {
            stale.push(rule);
        }
    }
    Ok(stale)
}

/// Whether packets from the attachment's address leave by it.
pub(super) fn is_routed(pod: &mut Socket, link: &PodLink, pod_index: u32) -> Result<bool, Error> {
    let (family, table) = (link.family(), attachment_table(pod_index));
    let want = link.secondary_rule(pod_index);
    if !pod.rules(family)?.iter().any(|r| r.same(&want)) {
        return Ok(false);
    }
    let routes = pod.routes_over(family, table, pod_index)?;
    Ok(routes.iter().any(|r| r.dst == family.everything()))
}
