//! The addresses whose packets go where a rule of another program says.
//!
//! Rules for marked packets, and for packets of one link, are not looked at: they decide for some packets only, and
//! whether those are a pod's is not known. A rule that was added without a priority comes just before ours, because the
//! kernel gives it the lowest one that is free: wg-quick adds such rules.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::IpNet;

use crate::constants::{NODE_LOCAL_PREFIX, PODS_TABLE, PROTOCOL, RULE_ENI, RULE_PODS};
use crate::netlink::route::{Kind, LOCAL, Route};
use crate::netlink::rule::{Action, Rule};

/// Addresses, each with the priority of the first rule that decides.
pub type Steered = BTreeMap<IpNet, u32>;

/// The priority of the kernel's own rule for main.
const RULE_MAIN: u32 = 32_766;

/// Local pods' own routes, and the node's own addresses, which are no pod's anyway.
const HARMLESS: [u32; 2] = [PODS_TABLE, LOCAL];

/// What a rule could decide, by its place among ours.
struct Candidate<'a> {
    rule: &'a Rule,
    /// Packets to these, as it comes before the rule for local pods.
    to: Option<IpNet>,
    /// Packets from these, as it comes before the rules for ENIs.
    from: Option<IpNet>,
}

/// The addresses that `rules` of other programs decide for. The rules are in the kernel's order: of two with the same
/// priority, the older one comes first. `routes` has the contents of [`tables`].
#[must_use]
pub fn steered(rules: &[Rule], routes: &[Route]) -> Steered {
    let mut found = Steered::new();
    for candidate in candidates(rules) {
        for net in candidate.decides(routes) {
            found.entry(net).or_insert(candidate.rule.priority);
        }
    }
    found
}

/// The tables on which [`steered`] depends.
#[must_use]
pub fn tables(rules: &[Rule]) -> BTreeSet<u32> {
    let looks_up = |c: &Candidate<'_>| c.rule.action == Action::Lookup;
    let candidates = candidates(rules).filter(looks_up);
    let tables = candidates.map(|c| c.rule.table);
    tables.filter(|table| !HARMLESS.contains(table)).collect()
}

fn candidates(rules: &[Rule]) -> impl Iterator<Item = Candidate<'_>> {
    let ours = |rule: &Rule, priority| rule.protocol == PROTOCOL && rule.priority == priority;
    let by_priority = |limit| rules.partition_point(|rule| rule.priority < limit);
    let pods = rules.iter().position(|rule| ours(rule, RULE_PODS));
    let pods = pods.unwrap_or_else(|| by_priority(RULE_PODS + 1));
    // Pods of an IPv6 node are routed by main.
    let enis = rules.iter().rposition(|rule| ours(rule, RULE_ENI));
    let enis = enis.unwrap_or_else(|| by_priority(RULE_MAIN));
    let foreign = rules.iter().enumerate();
    let foreign = foreign.filter(|(_, rule)| rule.protocol != PROTOCOL && concerns_unmarked(rule));
    foreign.filter_map(move |(at, rule)| {
        let from_node = rule.iif.as_deref() == Some("lo");
        let unnamed = rule.from.is_none() && rule.to.is_none();
        let all = unnamed && rule.iif.is_none() && !rule.narrowed;
        let all = all.then(|| rule.family.everything());
        let candidate = Candidate {
            rule,
            to: rule.to.or(all).filter(|_| at < pods),
            from: rule.from.or(all).filter(|_| at < enis && !from_node),
        };
        (candidate.to.is_some() || candidate.from.is_some()).then_some(candidate)
    })
}

/// Whether packets without a mark can match. An inverted rule for a mark matches all that do not have it.
const fn concerns_unmarked(rule: &Rule) -> bool {
    if rule.inverted {
        rule.mark.is_some() && rule.from.is_none() && rule.to.is_none() && rule.iif.is_none()
    } else {
        rule.mark.is_none()
    }
}

impl Candidate<'_> {
    fn decides(&self, routes: &[Route]) -> Vec<IpNet> {
        match self.rule.action {
            Action::Nop => Vec::new(),
            Action::Reject(_) => self.to.into_iter().chain(self.from).collect(),
            Action::Goto(target) => {
                let to = self.to.filter(|_| target > RULE_PODS);
                let from = self.from.filter(|_| target > RULE_ENI);
                to.into_iter().chain(from).collect()
            }
            Action::Lookup if HARMLESS.contains(&self.rule.table) => Vec::new(),
            Action::Lookup => {
                let routes: Vec<_> = routes.iter().filter(|r| self.uses(r)).collect();
                let to = self.to.into_iter().flat_map(|to| {
                    let shared = routes.iter().filter_map(move |r| overlap(r.dst, to));
                    shared.collect::<Vec<_>>()
                });
                let leads_away = |r: &&Route| match self.rule.to {
                    Some(to) => overlap(r.dst, to).is_some(),
                    None => u32::from(r.dst.prefix_len()) < NODE_LOCAL_PREFIX,
                };
                let leads_away = routes.iter().copied().any(|r| leads_away(&r));
                to.chain(self.from.filter(|_| leads_away)).collect()
            }
        }
    }

    /// Whether a lookup by the rule can end at the route.
    fn uses(&self, route: &Route) -> bool {
        let length = u32::from(route.dst.prefix_len());
        let kept = self.rule.suppress_prefix.is_none_or(|most| length > most);
        route.table == self.rule.table && route.kind != Kind::Throw && kept
    }
}

/// What is in both.
fn overlap(one: IpNet, other: IpNet) -> Option<IpNet> {
    if one.contains(&other) {
        Some(other)
    } else {
        other.contains(&one).then_some(one)
    }
}
