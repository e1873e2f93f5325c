//! The kernel's side: settings, rules, routes and nftables, compared with what the node's ENIs and pods need.
//!
//! Only reads. The daemon or its state file provides the list of ENIs and pods.

use std::{collections::BTreeSet, fs, net::IpAddr};

use datapath::{
    constants::{PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_PODS, eni_table},
    filter,
    host::Scene,
    marks::Marks,
    netlink::{Family, Socket, link::Link},
    nft::{Listed, Nft},
};
use proto::error_chain::chain;

use super::{
    Check, Finding, Places, failure,
    neighbours::{self, Manager},
    warning,
};
use crate::{
    config::Config,
    host::{forwarding, marks_in_transit, other_family, predecessor::Seen},
    rpc::view::{Eni, View},
};

const TABLE: &str = "hawser";
const REPAIR: &str =
    "a running ipamd restores it; if it disappears again, find the program that removes it";

pub(super) fn checks(places: &Places, config: &Config, view: Option<&View>) -> Vec<Check> {
    let family = config.pool.family;
    let mut checks = Vec::new();
    match Socket::open() {
        Ok(mut socket) => {
            checks.push(settings(&mut socket, family, view));
            checks.push(links(&mut socket, config, view));
            checks.push(rules(&mut socket, config, view));
            checks.push(predecessors(&mut socket, family, config.egress.marks));
            checks.push(leases(&mut socket, family, view, Manager::here(places)));
            checks.push(routes(&mut socket, family, view));
        }
        Err(error) => checks.push(blind("rules", &error)),
    }
    if config.egress.other_family {
        checks.push(other_family(family.other()));
    }
    checks.push(nftables(family, config.network.block_pod_imds));
    checks.push(filters(config));
    checks
}

/// What pods need for destinations of the other family.
fn other_family(other: Family) -> Check {
    const NAME: &str = "egress";
    let found = Socket::open().and_then(|mut socket| other_family::look(&mut socket, other));
    match found {
        Ok(None) => Check::new(
            NAME,
            "the node has an address and a default route",
            Vec::new(),
        ),
        Ok(Some(lack)) => {
            let (what, effect) = match other {
                Family::V4 => (
                    "pods do not reach IPv4 destinations",
                    "connections of pods to IPv4 addresses fail",
                ),
                Family::V6 => (
                    "pods do not reach IPv6 destinations",
                    "connections of pods to IPv6 addresses fail",
                ),
            };
            let evidence = lack.text(other).to_owned();
            Check::new(
                NAME,
                "",
                vec![warning(what, evidence, effect, other_family::remedy(other))],
            )
        }
        Err(error) => blind(NAME, &error),
    }
}

fn blind(name: &'static str, error: &dyn std::error::Error) -> Check {
    let finding = failure(
        "the kernel cannot be queried",
        chain(error),
        "ipamd cannot work here",
        "run this in the host's network namespace, on a kernel with nftables and policy routing",
    );
    Check::new(name, "", vec![finding])
}

/// Settings of the whole node, and the effect of IPv6 forwarding on a learned route.
fn settings(socket: &mut Socket, family: Family, view: Option<&View>) -> Check {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let seen = format!("kernel {}, forwarding on", kernel.trim());
    let findings = match family {
        Family::V4 => vec![forwards(
            "/proc/sys/net/ipv4/ip_forward",
            "sysctl net.ipv4.ip_forward=1, and find out what sets it to 0",
        )],
        Family::V6 => vec![
            forwards(
                "/proc/sys/net/ipv6/conf/all/forwarding",
                "sysctl net.ipv6.conf.all.forwarding=1, and find out what sets it to 0",
            ),
            deaf(socket, view),
        ],
    };
    Check::new("sysctl", seen, findings.into_iter().flatten().collect())
}

fn forwards(path: &str, remedy: &'static str) -> Option<Finding> {
    match fs::read_to_string(path) {
        Ok(text) if text.trim() == "1" => None,
        Ok(text) => Some(failure(
            "the node does not forward packets",
            format!("{path} is {}", text.trim()),
            "pods reach only their own node",
            remedy,
        )),
        Err(error) => Some(failure(
            "the node's forwarding cannot be read",
            format!("{path}: {error}"),
            "unknown",
            "mount /proc; without IPv6 in the kernel, ENABLE_IPv6 cannot be",
        )),
    }
}

/// A router ignores advertisements if `accept_ra` is 1.
fn deaf(socket: &mut Socket, view: Option<&View>) -> Option<Finding> {
    let links = socket.links().unwrap_or_default();
    let enis = ready(view);
    let primary = enis.iter().find(|eni| eni.primary)?;
    let link = links.iter().find(|link| is_link_of(link, primary))?;
    link.ipv6.filter(|conf| conf.accept_ra == 1).map(|_| {
        failure(
            "the node ignores its router's advertisements",
            format!("net.ipv6.conf.{}.accept_ra is 1 on a node that forwards", link.name),
            "its default route expires half an hour after the last accepted advertisement, and pods then have no route out either",
            "set it to 2, or to 0 if another program handles the advertisements",
        )
    })
}

fn is_link_of(link: &Link, eni: &Eni) -> bool {
    link.mac.is_some_and(|mac| mac.to_string() == eni.mac)
}

fn ready(view: Option<&View>) -> Vec<&Eni> {
    view.into_iter()
        .flat_map(|view| &view.enis)
        .filter(|eni| eni.phase == "ready" && !eni.missing)
        .collect()
}

/// Each ENI's link: it must exist, be up, and have the right MTU and a loose source check.
fn links(socket: &mut Socket, config: &Config, view: Option<&View>) -> Check {
    const NAME: &str = "links";
    let enis = ready(view);
    if enis.is_empty() {
        return Check::skipped(NAME, "the list of ENIs needs the daemon or its state file");
    }
    let links = match socket.links() {
        Ok(links) => links,
        Err(error) => return blind(NAME, &error),
    };
    let mtu = config.network.eni_mtu;
    let mut findings = Vec::new();
    for eni in &enis {
        let Some(link) = links.iter().find(|link| is_link_of(link, eni)) else {
            findings.push(failure(
                format!("{} has no link", eni.id),
                format!("no interface has MAC {}", eni.mac),
                "pods on this ENI have no network beyond the node",
                "check whether it is attached, and check the kernel's log for its driver",
            ));
            continue;
        };
        let mut wrong = Vec::new();
        if !link.up {
            wrong.push("it is down".to_owned());
        }
        if link.mtu != mtu {
            wrong.push(format!("its MTU is {} instead of {mtu}", link.mtu));
        }
        if link.rp_filter == Some(1) {
            wrong.push("rp_filter is 1 (strict)".to_owned());
        }
        if !wrong.is_empty() {
            findings.push(failure(
                format!("{} of {} is not configured correctly", link.name, eni.id),
                wrong.join(", "),
                "packets of its pods are lost, or replies to them dropped",
                REPAIR,
            ));
        }
    }
    Check::new(NAME, format!("{} ENIs up, MTU {mtu}", enis.len()), findings)
}

/// Checks the ip rules: local pods first, then each ENI's pods and the ENI's own address to its table.
fn rules(socket: &mut Socket, config: &Config, view: Option<&View>) -> Check {
    const NAME: &str = "rules";
    let family = config.pool.family;
    let present = match socket.rules(family) {
        Ok(rules) => rules,
        Err(error) => return blind(NAME, &error),
    };
    let ours: Vec<_> = present.iter().filter(|r| r.protocol == PROTOCOL).collect();
    let has = |priority, table| {
        ours.iter()
            .any(|r| r.priority == priority && r.table == table)
    };
    let mut findings = Vec::new();
    let mut missing = |what: String, effect| {
        let evidence = format!("{} rules are ours", ours.len());
        findings.push(failure(
            format!("{what} is missing"),
            evidence,
            effect,
            REPAIR,
        ));
    };
    if !has(RULE_PODS, PODS_TABLE) {
        let what = format!("the rule {RULE_PODS} to the pods' table");
        missing(what, "no packet reaches a pod of this node");
    }
    let enis = if family == Family::V4 {
        ready(view)
    } else {
        Vec::new()
    };
    for eni in enis {
        let Some(device) = eni.device else { continue };
        let table = eni_table(eni.card, device);
        for (priority, effect) in [
            (
                RULE_ENI,
                "pods on this ENI send through the primary one, and the VPC drops the packets",
            ),
            (
                RULE_ENI_ADDRESS,
                "the node does not answer on this ENI's own address",
            ),
        ] {
            // The node's traffic with the primary's address is routed by main.
            let expected = !(eni.primary && priority == RULE_ENI_ADDRESS);
            if expected && !has(priority, table) {
                missing(
                    format!("the rule {priority} to table {table} of {}", eni.id),
                    effect,
                );
            }
        }
    }
    findings.extend(neighbours::before_ours(&present));
    findings.extend(neighbours::of_our_marks(&present, config.egress.marks));
    Check::new(NAME, format!("{} of ours", ours.len()), findings)
}

/// Whether another network plugin runs here, or left its rules and chains.
fn predecessors(socket: &mut Socket, family: Family, marks: Marks) -> Check {
    const NAME: &str = "predecessors";
    let looked = Scene::of(socket, family, marks);
    let scene = match looked {
        Ok(scene) => scene,
        Err(error) => return blind(NAME, &error),
    };
    let legacy = filter::legacy_mentions(family, &["AWS-SNAT-CHAIN-", "AWS-CONNMARK-CHAIN-"]);
    let legacy = match legacy {
        Ok(legacy) => legacy,
        Err(error) => return blind(NAME, &error),
    };
    let findings = neighbours::predecessors(&Seen::here(), &scene, legacy);
    Check::new(NAME, "no other network plugin runs or left rules", findings)
}

/// Whether a DHCP client configures ENIs beside the primary one.
fn leases(
    socket: &mut Socket,
    family: Family,
    view: Option<&View>,
    manager: Option<Manager>,
) -> Check {
    const NAME: &str = "dhcp";
    let enis = ready(view);
    let secondary: Vec<_> = enis.iter().filter(|eni| !eni.primary).collect();
    if secondary.is_empty() {
        return Check::skipped(NAME, "no secondary ENI is known");
    }
    let (links, routes) = match socket.links().and_then(|links| {
        let routes = socket.routes(family, None)?;
        Ok((links, routes))
    }) {
        Ok(found) => found,
        Err(error) => return blind(NAME, &error),
    };
    let of_secondary = |link: &&Link| secondary.iter().any(|eni| is_link_of(link, eni));
    let secondary_links: Vec<_> = links.iter().filter(of_secondary).collect();
    let finding = neighbours::dhcp_on_secondary(&routes, &secondary_links, manager);
    let seen = format!(
        "{} secondary ENIs without routes of a DHCP client",
        secondary_links.len()
    );
    Check::new(NAME, seen, finding.into_iter().collect())
}

/// A route to every pod.
fn routes(socket: &mut Socket, family: Family, view: Option<&View>) -> Check {
    const NAME: &str = "routes";
    let pods: Vec<_> = view
        .into_iter()
        .flat_map(|view| &view.enis)
        .flat_map(|eni| &eni.addresses)
        .filter(|address| address.state == "assigned")
        .filter_map(|address| Some((address.address?, address)))
        .collect();
    let routed: BTreeSet<IpAddr> = match socket.routes(family, Some(PODS_TABLE)) {
        Ok(routes) => routes.iter().map(|route| route.dst.addr()).collect(),
        Err(error) => return blind(NAME, &error),
    };
    let lost = pods.iter().filter(|(address, _)| !routed.contains(address));
    let findings = lost.map(|(address, shown)| {
        failure(
            format!("no route leads to {address}"),
            format!("table {PODS_TABLE} has {} routes", routed.len()),
            "the pod is unreachable",
            if shown.pod.is_empty() {
                "its namespace may be gone: the daemon's sweep releases it within minutes"
            } else {
                REPAIR
            },
        )
    });
    let findings = findings.collect();
    Check::new(
        NAME,
        format!("{} pods, each with a route", pods.len()),
        findings,
    )
}

/// Filters of other programs that drop pods' packets.
fn filters(config: &Config) -> Check {
    const NAME: &str = "filters";
    let (family, prefix) = (config.pool.family, &config.network.veth_prefix);
    let found = match forwarding::blocked(family, prefix, config.egress.marks) {
        Ok(found) => found,
        Err(error) => return blind(NAME, &error),
    };
    let findings = found.into_iter().map(|(way, chain)| {
        failure(
            format!("a filter drops packets {way}"),
            chain.to_string(),
            "these packets are lost, although ADD succeeds",
            "accept them in the program that owns the chain; for iptables: -I FORWARD -i eni+ -j ACCEPT and -I FORWARD \
             -o eni+ -j ACCEPT",
        )
    });
    let findings = findings.collect();
    Check::new(NAME, "none drops what the node forwards for pods", findings)
}

/// Our table exists, and no table of another network plugin.
fn nftables(family: Family, block_metadata: bool) -> Check {
    const NAME: &str = "nftables";
    let listed = match Nft::open().and_then(|mut nft| nft.list()) {
        Ok(listed) => listed,
        Err(error) => return blind(NAME, &error),
    };
    let mut findings = Vec::new();
    let (table, chain, effect) = match family {
        Family::V4 => (
            "ip hawser",
            "choose_eni",
            "pods on secondary ENIs send through the primary one, and traffic out of the VPC is not translated",
        ),
        Family::V6 => (
            "ip6 hawser",
            "check_source",
            "pods can send from addresses of others, and act as routers",
        ),
    };
    let mut wanted = vec![(chain, effect)];
    if block_metadata {
        wanted.push((
            "block_metadata",
            "pods reach the instance metadata service, and the node's credentials with it",
        ));
    }
    for (chain, effect) in wanted {
        if let Some(what) = lacks(&listed, family, chain) {
            let table = format!("table {table} is not correct");
            findings.push(failure(table, what, effect, REPAIR));
        }
    }
    let upstream: Vec<_> = listed
        .iter()
        .filter_map(|object| match object {
            Listed::Chain { name, .. } if name.starts_with("AWS-") => Some(name.clone()),
            _ => None,
        })
        .collect();
    if !upstream.is_empty() {
        findings.push(warning(
            "chains of the AWS VPC CNI are left",
            upstream.join(", "),
            "they translate and mark pods' packets a second time",
            "delete the pods that it started, then restart ipamd, which removes the chains; or reboot the node",
        ));
    }
    if let Ok(Some(packets @ 1..)) = marks_in_transit::counted() {
        findings.push(warning(
            "packets in transit carry mark bits of ENIs although no pod sent them",
            format!("{packets} packets since ipamd started"),
            "they may leave by an interface that does not own their source address, and the VPC drops them then",
            "have the program that marks them use other bits, or set HAWSER_ENI_MARK_MASK",
        ));
    }
    Check::new(
        NAME,
        format!("table {table} exists, among {} objects", listed.len()),
        findings,
    )
}

/// What is wrong with a chain of our table of this family.
fn lacks(listed: &[Listed], of: Family, wanted: &str) -> Option<String> {
    let number = match of {
        Family::V4 => 2,
        Family::V6 => 10,
    };
    let is_ours = |object: &Listed| matches!(object, Listed::Table { family, name } if *family == number && name == TABLE);
    let is_rule = |object: &Listed| {
        matches!(object, Listed::Rule { family, table, chain, .. }
            if *family == number && table == TABLE && chain == wanted)
    };
    if !listed.iter().any(is_ours) {
        return Some("it is not there".to_owned());
    }
    let empty = !listed.iter().any(is_rule);
    empty.then(|| format!("its chain {wanted} is empty"))
}
