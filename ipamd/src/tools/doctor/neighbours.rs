//! Finds other programs on this node whose rules, marks and routes affect pods' packets, and their usual names.
//!
//! Pure: rules and routes in, findings out. The name is a guess from a priority, a mark or a route's protocol, so the text
//! says "usually".

use std::path::Path;

use datapath::{
    constants::{PROTOCOL, RULE_ENI_ADDRESS},
    host::{Predecessor, Scene, conflicts},
    marks::Marks,
    netlink::{link::Link, route::Route, rule::Rule},
};

use super::{Finding, Places, Severity, failure, finding, warning};
use crate::{
    host::predecessor::Seen,
    rpc::view::{Address, View},
};

/// Priorities that programs use by default, with the program's usual name.
const USUAL: [(std::ops::RangeInclusive<u32>, &str); 8] = [
    (9..=110, "Cilium"),
    (512..=512, "the AWS VPC CNI"),
    (1024..=1024, "the AWS VPC CNI"),
    (1535..=1536, "the AWS VPC CNI"),
    (5_200..=5_280, "Tailscale"),
    (10_000..=10_999, "ec2-net-utils"),
    (30_400..=30_500, "nodeadm"),
    (32_764..=32_765, "wg-quick (WireGuard)"),
];

/// `RTPROT_DHCP`.
const DHCP: u8 = 16;

/// The program that usually has a rule of this priority.
#[must_use]
pub(super) fn usual_owner(priority: u32) -> &'static str {
    let known = USUAL.iter().find(|(range, _)| range.contains(&priority));
    known.map_or(
        "an administrator, or a program unknown here",
        |(_, name)| name,
    )
}

fn shown(rules: &[&Rule]) -> String {
    let each = rules.iter().take(5).map(|rule| {
        let Rule {
            priority, table, ..
        } = rule;
        format!(
            "{priority} to table {table}, usually of {}",
            usual_owner(*priority)
        )
    });
    each.collect::<Vec<_>>().join("; ")
}

/// Rules of others that come before ours.
pub(super) fn before_ours(present: &[Rule]) -> Option<Finding> {
    let foreign: Vec<_> = present
        .iter()
        .filter(|rule| rule.protocol != PROTOCOL && (1..RULE_ENI_ADDRESS).contains(&rule.priority))
        .collect();
    (!foreign.is_empty()).then(|| {
        warning(
            format!("{} rules of other programs come before ours", foreign.len()),
            shown(&foreign),
            "matching packets do not use the ENI of their pod",
            "if the program is not used any more, reboot the node to remove its rules; otherwise, configure a priority above 1536",
        )
    })
}

/// Rules of others that match bits of the packet mark that Hawser uses for ENIs.
pub(super) fn of_our_marks(present: &[Rule], marks: Marks) -> Option<Finding> {
    let conflicts = conflicts(present, marks);
    let foreign: Vec<_> = conflicts.iter().collect();
    (!foreign.is_empty()).then(|| {
        let evidence = foreign.iter().take(5).map(|rule| {
            let (value, mask) = rule.mark.unwrap_or_default();
            format!("{} matches mark {value:#x}/{mask:#x}", rule.priority)
        });
        warning(
            "another program uses the same bits of the packet mark as Hawser",
            format!(
                "{}: {}",
                evidence.collect::<Vec<_>>().join(", "),
                shown(&foreign)
            ),
            "each program's rules apply to the packets of the other one",
            "configure the program to use other bits, or set HAWSER_ENI_MARK_MASK and AWS_VPC_K8S_CNI_CONNMARK",
        )
    })
}

/// Addresses of the pool that the host keeps from pods.
pub(super) fn claims(view: &View) -> Vec<Finding> {
    let all: Vec<_> = view.enis.iter().flat_map(|eni| &eni.addresses).collect();
    let shown = |address: &Address, why: &str| {
        let ip = address
            .address
            .map_or_else(String::new, |ip| ip.to_string());
        match address.pod.as_str() {
            "" => format!("{ip}{why}"),
            pod => format!("{ip}{why} (of pod {pod})"),
        }
    };
    // A pod that has such an address has lost its network.
    let severity = |of: &[&&Address]| match of.iter().any(|address| address.state == "assigned") {
        true => Severity::Failure,
        false => Severity::Warning,
    };
    let own: Vec<_> = all.iter().filter(|address| address.host_uses).collect();
    let steered: Vec<_> = all
        .iter()
        .filter(|address| address.foreign_rule > 0)
        .collect();
    let mut findings = Vec::new();
    if !own.is_empty() {
        let evidence: Vec<_> = own
            .iter()
            .take(5)
            .map(|address| shown(address, ""))
            .collect();
        findings.push(finding(
            severity(&own),
            "the node itself uses addresses of the pool",
            evidence.join(", "),
            "no pod gets them, and a pod that has one loses its packets to the node",
            "find out what configured them (DHCP, keepalived, kube-vip, an agent; see `ip addr`), and give it addresses \
             outside of the pool, for example from a CIDR reservation of the subnet; delete the pods that have one",
        ));
    }
    if !steered.is_empty() {
        let evidence: Vec<_> = steered
            .iter()
            .take(5)
            .map(|address| {
                let rule = address.foreign_rule;
                let why = format!(" by ip rule {rule}, usually of {}", usual_owner(rule));
                shown(address, &why)
            })
            .collect();
        findings.push(finding(
            severity(&steered),
            "rules of other programs decide the way of addresses of the pool",
            evidence.join(", "),
            "no pod gets them, and a pod that has one may have no network",
            "remove the rules (`ip rule`), or the program that adds them",
        ));
    }
    findings
}

/// Predecessors that still run, or that left rules behind. `legacy`: whether the older iptables has their chains.
pub(super) fn predecessors(seen: &Seen, scene: &Scene, legacy: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(evidence) = &seen.aws_node {
        findings.push(failure(
            "aws-node runs on this node too",
            evidence.clone(),
            "two daemons assign the same addresses; ipamd does not start beside it",
            "keep the DaemonSet aws-node off this node",
        ));
    }
    for of in [Predecessor::AwsNode, Predecessor::CiliumEni] {
        let rules: Vec<_> = scene.rules_of(of).map(ToString::to_string).collect();
        if rules.is_empty() {
            continue;
        }
        let evidence = rules.iter().take(3).cloned().collect::<Vec<_>>();
        findings.push(warning(
            format!("{} rules of {} are left", rules.len(), of.name()),
            evidence.join("; "),
            "no pod gets an address that they decide for",
            "delete the pods that it started, then restart ipamd, which removes what belongs to no pod; or reboot the node",
        ));
    }
    if legacy {
        findings.push(warning(
            "chains of the AWS VPC CNI are left in iptables-legacy",
            "AWS-SNAT-CHAIN-0 or AWS-CONNMARK-CHAIN-0",
            "they translate and mark pods' packets a second time",
            "reboot the node, or delete them: iptables-legacy-save | grep -v AWS | iptables-legacy-restore",
        ));
    }
    findings
}

/// Routes and addresses that a DHCP client configured on a secondary ENI.
pub(super) fn dhcp_on_secondary(
    routes: &[Route],
    secondary: &[&Link],
    manager: Option<Manager>,
) -> Option<Finding> {
    let touched: Vec<_> = secondary
        .iter()
        .filter(|link| {
            routes
                .iter()
                .any(|route| route.protocol == DHCP && route.oif == Some(link.index))
        })
        .map(|link| link.name.as_str())
        .collect();
    (!touched.is_empty()).then(|| {
        let who = manager.map_or("a DHCP client", Manager::name);
        warning(
            format!("{who} configures secondary ENIs"),
            format!("routes with protocol dhcp on {}", touched.join(", ")),
            "the host may send its own packets by an ENI that does not own their source",
            manager.map_or(
                "keep the DHCP client off every interface but the first",
                Manager::remedy,
            ),
        )
    })
}

/// Who configures interfaces on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manager {
    Networkd,
    NetworkManager,
}

impl Manager {
    /// By the traces of a running one.
    pub(super) fn here(places: &Places) -> Option<Self> {
        let there = |path| places.host(Path::new(path)).exists();
        if there("/run/NetworkManager/NetworkManager.pid") {
            Some(Self::NetworkManager)
        } else if there("/run/systemd/netif/links") {
            Some(Self::Networkd)
        } else {
            None
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Networkd => "systemd-networkd",
            Self::NetworkManager => "NetworkManager",
        }
    }

    /// The drop-in that ends it.
    const fn remedy(self) -> &'static str {
        match self {
            Self::Networkd => {
                "write /etc/systemd/network/10-hawser.network with [Match] Driver=ena and Name=!eth0 !ens5 (the first \
                 interface), [Link] Unmanaged=yes; then networkctl reload"
            }
            Self::NetworkManager => {
                "write /etc/NetworkManager/conf.d/10-hawser.conf with [keyfile] and \
                 unmanaged-devices=driver:ena,except:interface-name:eth0,except:interface-name:ens5 (the first \
                 interface); then nmcli general reload"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datapath::netlink::Family;

    use super::*;

    fn rule(priority: u32, mark: Option<(u32, u32)>, protocol: u8) -> Rule {
        Rule {
            mark,
            protocol,
            ..Rule::all(Family::V4, priority, 52)
        }
    }

    #[test]
    fn programs_are_named_by_their_usual_priorities() {
        for (priority, name) in [
            (9, "Cilium"),
            (110, "Cilium"),
            (1536, "the AWS VPC CNI"),
            (5210, "Tailscale"),
            (5270, "Tailscale"),
            (32764, "wg-quick (WireGuard)"),
            (77_777, "an administrator, or a program unknown here"),
        ] {
            assert_eq!(usual_owner(priority), name, "{priority}");
        }
    }

    #[test]
    fn rules_of_others_before_ours_are_found_with_their_owner() {
        assert_eq!(
            before_ours(&[rule(512, None, PROTOCOL), rule(32_766, None, 2)]),
            None
        );
        let found = before_ours(&[rule(100, None, 0), rule(5270, None, 0)]).unwrap();
        assert!(found.evidence.contains("usually of Cilium"), "{found:?}");
        assert!(found.evidence.contains("usually of Tailscale"), "{found:?}");
    }

    #[test]
    fn foreign_users_of_our_mark_bits_are_found() {
        // Tailscale's own bits are above ours.
        let theirs = rule(5210, Some((0x80000, 0xff0000)), 0);
        assert_eq!(
            of_our_marks(
                &[theirs, rule(1536, Some((1, 0x7f)), PROTOCOL)],
                Marks::DEFAULT
            ),
            None
        );
        let found = of_our_marks(&[rule(100, Some((0x1, 0x1)), 0)], Marks::DEFAULT).unwrap();
        assert!(
            found.evidence.contains("100 matches mark 0x1/0x1"),
            "{found:?}"
        );
    }
}
