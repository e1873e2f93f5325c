//! The living pods of a predecessor, and what the kernel has of each.

use std::net::IpAddr;

use super::leftovers::{Predecessor, Scene, is_pod_link};
use crate::constants::RULE_ENI;
use crate::netlink::Mac;
use crate::netlink::link::Link;
use crate::netlink::route::{MAIN, Route};
use crate::netlink::rule::Rule;

/// The tables of pods with an ENI of their own: 100 plus the number of their VLAN.
const BRANCH_TABLES: std::ops::RangeInclusive<u32> = 101..=220;
/// What the host end of a pod is called whose security groups are enforced strictly.
const BRANCH_PREFIX: &str = "vlan";

/// A pod that a predecessor wired and that still has its link.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ForeignPod {
    /// Its host end.
    pub link: Link,
    /// The addresses that the main table routes to it. One, or none if somebody removed the route.
    pub addresses: Vec<IpAddr>,
    /// It has an ENI of its own, with a VLAN.
    pub branch: bool,
    /// Programs are attached to its link (`clsact`): a network policy is in force.
    pub filtered: bool,
    /// The MAC address of its own end; `None` if the kernel does not tell.
    pub pod_mac: Option<Mac>,
    /// The addresses of its own end, without link-local ones. None if it has none or if the kernel does not tell.
    pub inside: Vec<IpAddr>,
}

/// What is of no use any more when the pods are Hawser's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traces {
    /// Of each pod: its rules, and then its routes in main.
    pub pods: Vec<(Vec<Rule>, Vec<Route>)>,
    /// Of the node. They serve all pods of the predecessor.
    pub node: Vec<Rule>,
}

impl Scene {
    /// The pods of `of` that have a link.
    #[must_use]
    pub fn pods(&self, of: Predecessor) -> Vec<ForeignPod> {
        let links = self.links.iter().filter(|link| is_pod_link(link, of));
        links.map(|link| self.pod(link)).collect()
    }

    fn pod(&self, link: &Link) -> ForeignPod {
        let over = |route: &&Route| route.oif == Some(link.index);
        let routes: Vec<_> = self.host_routes().filter(over).collect();
        let addresses = routes.iter().filter(|route| route.table == MAIN);
        let addresses: Vec<IpAddr> = addresses.map(|route| route.dst.addr()).collect();
        let by_table = routes
            .iter()
            .any(|route| BRANCH_TABLES.contains(&route.table));
        let by_rule = |rule: &Rule| {
            let from = rule.from.is_some_and(|net| addresses.contains(&net.addr()));
            rule.priority == RULE_ENI && from && BRANCH_TABLES.contains(&rule.table)
        };
        ForeignPod {
            branch: by_table
                || link.name.starts_with(BRANCH_PREFIX)
                || self.rules.iter().any(by_rule),
            link: link.clone(),
            addresses,
            filtered: false,
            pod_mac: None,
            inside: Vec::new(),
        }
    }

    /// What `of` had for these pods, each with its address and the index of its link, and for the node if no other pod of `of`
    /// is left.
    #[must_use]
    pub fn traces(&self, of: Predecessor, pods: &[(IpAddr, u32)]) -> Traces {
        let pods = pods.iter().map(|pod| self.traces_of(of, *pod));
        let pods = pods.filter(|(rules, routes)| !(rules.is_empty() && routes.is_empty()));
        let pods = pods.collect();
        let alone = !self.links.iter().any(|link| is_pod_link(link, of));
        let for_all = |rule: &&Rule| alone && self.shape(rule) == Some((of, None));
        let node = self.rules.iter().filter(for_all);
        Traces {
            pods,
            node: node.cloned().collect(),
        }
    }

    fn traces_of(
        &self,
        of: Predecessor,
        (address, index): (IpAddr, u32),
    ) -> (Vec<Rule>, Vec<Route>) {
        let rules = self.rules.iter();
        let rules = rules.filter(|rule| self.shape(rule) == Some((of, Some(address))));
        let routes = self.host_routes().filter(|route| {
            let to_pod = route.dst.addr() == address && route.oif == Some(index);
            to_pod && route.table == MAIN
        });
        (rules.cloned().collect(), routes.copied().collect())
    }
}
