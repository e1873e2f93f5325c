//! What an earlier network plugin left behind, recognised by shape and value.
//!
//! A rule is a leftover if it has exactly the form in which the program adds it, its address is in the VPC, no route
//! leads to a pod of the program with this address, and the program does not run. Whatever is uncertain stays.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::super::error::{During, HostError};
use crate::constants::{
    GROUP_BASE, GROUP_DYING, PODS_TABLE, PROTOCOL, RULE_ENI, RULE_PODS, RULE_PRIMARY,
};
use crate::marks::Marks;
use crate::netlink::link::Link;
use crate::netlink::route::{LOCAL, MAIN, Route};
use crate::netlink::rule::{Action, Rule};
use crate::netlink::{Family, Socket};

/// To each of `AWS_EXTERNAL_SERVICE_CIDRS`. The AWS VPC CNI takes every such rule for its own.
const RULE_EXTERNAL_SERVICE: u32 = 1535;

/// A program that may have given addresses of this VPC to pods of this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Predecessor {
    /// The AWS VPC CNI.
    AwsNode,
    /// Cilium, when it manages ENIs itself. When it is chained behind another plugin, it adds none of these rules.
    CiliumEni,
}

impl Predecessor {
    /// Its name, for people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AwsNode => "the AWS VPC CNI",
            Self::CiliumEni => "Cilium in ENI mode",
        }
    }
}

/// What the kernel has, of one family.
#[derive(Debug, Default)]
pub struct Scene {
    /// In the kernel's order.
    pub rules: Vec<Rule>,
    /// Of every table.
    pub routes: Vec<Route>,
    /// Of the namespace.
    pub links: Vec<Link>,
    /// Ours. Both programs route replies of `NodePort` connections by one mark, which operators may have changed.
    pub marks: Marks,
}

impl Scene {
    /// Reads it.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn of(socket: &mut Socket, family: Family, marks: Marks) -> Result<Self, HostError> {
        let what = "look for what a predecessor left";
        Ok(Self {
            rules: socket.rules(family).during(what)?,
            routes: socket.routes(family, None).during(what)?,
            links: socket.links().during(what)?,
            marks,
        })
    }

    /// Whether a rule, or a route to a pod, shows that a predecessor was here. A pod of a predecessor with neither of them has
    /// no network. Does not list all links: a node has hundreds of them, and the list takes a tenth of the daemon's start.
    ///
    /// # Errors
    /// If the kernel cannot be queried.
    pub fn has_traces(
        socket: &mut Socket,
        family: Family,
        marks: Marks,
    ) -> Result<bool, HostError> {
        let what = "look for what a predecessor left";
        let scene = Self {
            rules: socket.rules(family).during(what)?,
            routes: socket.routes(family, None).during(what)?,
            links: Vec::new(),
            marks,
        };
        let mut rules = scene.rules.iter();
        if rules.any(|rule| scene.shape(rule).is_some()) {
            return Ok(true);
        }
        // Every node has such routes over its ENIs, to the VPC's router for example.
        let over: BTreeSet<u32> = scene.host_routes().filter_map(|route| route.oif).collect();
        for index in over {
            let link = socket.link_by_index(index).during(what)?;
            let of = [Predecessor::AwsNode, Predecessor::CiliumEni];
            if link.is_some_and(|link| of.into_iter().any(|of| is_pod_link(&link, of))) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The rules that `of` left behind for certain. `vpc` has the blocks of the VPC. The program does not run.
    #[must_use]
    pub fn leftovers(&self, of: Predecessor, vpc: &[Ipv4Net]) -> Vec<Rule> {
        let in_vpc = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => vpc.iter().any(|block| block.contains(&ip)),
            IpAddr::V6(_) => true,
        };
        if self.has_unexplained_link(of) {
            return Vec::new();
        }
        let has_pods = self.has_pods(of);
        let routed = self.routed();
        let left = |rule: &&Rule| match self.shape(rule) {
            Some((by, Some(pod))) => by == of && in_vpc(pod) && !routed.contains(&pod),
            Some((by, None)) => by == of && !has_pods,
            None => false,
        };
        self.rules.iter().filter(left).cloned().collect()
    }

    /// The rules that look like the program's, whether it needs them or not.
    pub fn rules_of(&self, of: Predecessor) -> impl Iterator<Item = &Rule> {
        let looks = move |rule: &&Rule| self.shape(rule).is_some_and(|(by, _)| by == of);
        self.rules.iter().filter(looks)
    }

    /// Whether pods of the program seem to live: a link like theirs, or a rule and a route for one.
    #[must_use]
    pub fn has_pods(&self, of: Predecessor) -> bool {
        self.links.iter().any(|link| is_pod_link(link, of)) || self.routes_pods(of)
    }

    /// Whether the program routes packets to pods of its own: a rule and a route for one.
    #[must_use]
    pub fn routes_pods(&self, of: Predecessor) -> bool {
        let routed = self.routed();
        let lives = |rule: &Rule| match self.shape(rule) {
            Some((by, Some(pod))) => by == of && routed.contains(&pod),
            _ => false,
        };
        self.rules.iter().any(lives)
    }

    /// A link like those of the program's pods, to which no route of others leads: its address is not known.
    fn has_unexplained_link(&self, of: Predecessor) -> bool {
        let explained = |link: &Link| {
            let over = |r: &&Route| r.oif == Some(link.index);
            self.host_routes().any(|r| over(&r))
        };
        let mut links = self.links.iter().filter(|link| is_pod_link(link, of));
        links.any(|link| !explained(link))
    }

    /// Addresses with a route of another program to a link.
    fn routed(&self) -> BTreeSet<IpAddr> {
        self.host_routes().map(|r| r.dst.addr()).collect()
    }

    pub(super) fn host_routes(&self) -> impl Iterator<Item = &Route> {
        let single = |r: &&Route| r.dst.prefix_len() == r.dst.max_prefix_len();
        let foreign = |r: &&Route| {
            r.protocol != PROTOCOL && r.table != LOCAL && r.table != PODS_TABLE && r.oif.is_some()
        };
        self.routes.iter().filter(single).filter(foreign)
    }

    /// The program that adds rules of exactly this form, and the pod's address, if it is for one pod.
    pub(super) fn shape(&self, rule: &Rule) -> Option<(Predecessor, Option<IpAddr>)> {
        let plain = rule.protocol != PROTOCOL
            && rule.action == Action::Lookup
            && rule.suppress_prefix.is_none()
            && rule.suppress_group.is_none()
            && rule.iif.is_none()
            && !rule.inverted
            && !rule.narrowed;
        if !plain {
            return None;
        }
        let to_main = rule.table == MAIN;
        let known = match (rule.priority, rule.from, rule.to, rule.mark) {
            (RULE_PODS, None, Some(to), None) if to_main => {
                (Predecessor::AwsNode, Some(single(to)?))
            }
            // Old versions had one for each block of the VPC.
            (RULE_ENI, Some(from), _, None) if !to_main => {
                (Predecessor::AwsNode, Some(single(from)?))
            }
            (RULE_PRIMARY, None, None, Some(mark)) if to_main && self.is_of_node_ports(mark) => {
                (Predecessor::AwsNode, None)
            }
            (RULE_EXTERNAL_SERVICE, None, Some(_), None) if to_main => (Predecessor::AwsNode, None),
            (20, None, Some(to), None) if to_main => (Predecessor::CiliumEni, Some(single(to)?)),
            (110 | 111, Some(from), _, None) if !to_main => {
                (Predecessor::CiliumEni, Some(single(from)?))
            }
            (109, None, None, Some(mark)) if to_main && self.is_of_node_ports(mark) => {
                (Predecessor::CiliumEni, None)
            }
            _ => return None,
        };
        Some(known)
    }

    /// The predecessor may have had the default when ours are others.
    fn is_of_node_ports(&self, mark: (u32, u32)) -> bool {
        let known = [self.marks, Marks::DEFAULT];
        known
            .iter()
            .any(|marks| mark == (marks.primary(), marks.primary()))
    }
}

fn single(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// Whether it is the host's end of a pod of this program, by its name.
pub(super) fn is_pod_link(link: &Link, of: Predecessor) -> bool {
    let ours = (GROUP_BASE..=GROUP_DYING).contains(&link.group);
    if ours || link.kind.as_deref() != Some("veth") {
        return false;
    }
    match of {
        // A prefix of at most four characters, and 11 digits of a hash.
        Predecessor::AwsNode => {
            let digits = link.name.len().checked_sub(11).filter(|prefix| *prefix > 0);
            let digits = digits.and_then(|prefix| link.name.get(prefix..));
            digits.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
        }
        Predecessor::CiliumEni => link.name.starts_with("lxc"),
    }
}
