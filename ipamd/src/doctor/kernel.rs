//! The kernel's side: settings, rules, routes and nftables, against what the node's ENIs and pods need.
//!
//! Only looks. What ENIs and pods there are is the daemon's word, or its state file's.

use std::{collections::BTreeSet, fs, net::IpAddr};

use datapath::{
    constants::{PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_PODS, eni_table},
    netlink::{Family, Socket, rule::Rule},
    nft::{Listed, Nft},
};

use super::{Check, Finding, failure, warning};
use crate::{
    config::Config,
    refusals,
    view::{Eni, View},
};

const TABLE: &str = "hawser";
const REPAIR: &str =
    "a running ipamd puts it back by itself; if it goes again, find the program that removes it";

pub(super) fn checks(config: &Config, view: Option<&View>) -> Vec<Check> {
    let mut checks = vec![settings()];
    match Socket::open() {
        Ok(mut socket) => {
            checks.push(links(&mut socket, config, view));
            checks.push(rules(&mut socket, view));
            checks.push(routes(&mut socket, view));
        }
        Err(error) => checks.push(blind("rules", &error)),
    }
    checks.push(nftables());
    checks
}

fn blind(name: &'static str, error: &dyn std::error::Error) -> Check {
    let finding = failure(
        "the kernel cannot be asked",
        refusals::chain(error),
        "ipamd cannot work here",
        "run this in the host's network namespace, on a kernel with nftables and policy routing",
    );
    Check::new(name, "", vec![finding])
}

/// Settings that only `/proc/sys` has; the links' own are told by netlink.
fn settings() -> Check {
    const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut findings = Vec::new();
    match fs::read_to_string(FORWARD) {
        Ok(text) if text.trim() == "1" => {}
        Ok(text) => findings.push(failure(
            "the node does not forward packets",
            format!("{FORWARD} is {}", text.trim()),
            "pods reach nothing but their own node",
            "sysctl net.ipv4.ip_forward=1, and find what sets it to 0",
        )),
        Err(error) => findings.push(failure(
            "the node's forwarding cannot be read",
            format!("{FORWARD}: {error}"),
            "unknown",
            "mount /proc",
        )),
    }
    let seen = format!("kernel {}, forwarding on", kernel.trim());
    Check::new("sysctl", seen, findings)
}

fn ready(view: Option<&View>) -> Vec<&Eni> {
    view.into_iter()
        .flat_map(|view| &view.enis)
        .filter(|eni| eni.phase == "ready" && !eni.missing)
        .collect()
}

/// Each ENI's link: there, up, of the right MTU, with a source check that lets its traffic in.
fn links(socket: &mut Socket, config: &Config, view: Option<&View>) -> Check {
    const NAME: &str = "links";
    let enis = ready(view);
    if enis.is_empty() {
        return Check::skipped(NAME, "which ENIs there are is the daemon's to tell");
    }
    let links = match socket.links() {
        Ok(links) => links,
        Err(error) => return blind(NAME, &error),
    };
    let mtu = config.network.eni_mtu;
    let mut findings = Vec::new();
    for eni in &enis {
        let of_eni = |link: &&datapath::netlink::link::Link| {
            link.mac
                .is_some_and(|mac| planner::Mac(mac).to_string() == eni.mac)
        };
        let Some(link) = links.iter().find(of_eni) else {
            findings.push(failure(
                format!("{} has no link", eni.id),
                format!("no interface has MAC {}", eni.mac),
                "pods on this ENI have no network beyond the node",
                "look whether it is attached, and what the kernel's log says of its driver",
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
                format!("{} of {} is not set up as it shall be", link.name, eni.id),
                wrong.join(", "),
                "packets of its pods are lost, or replies to them dropped",
                REPAIR,
            ));
        }
    }
    Check::new(NAME, format!("{} ENIs up, MTU {mtu}", enis.len()), findings)
}

/// The rules of design §4.2: local pods first, then each ENI's pods and the ENI's own address to its table.
fn rules(socket: &mut Socket, view: Option<&View>) -> Check {
    const NAME: &str = "rules";
    let present = match socket.rules(Family::V4) {
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
        missing(what, "no packet finds its way to a pod of this node");
    }
    for eni in ready(view).iter().filter(|eni| !eni.primary) {
        let Some(device) = eni.device else { continue };
        let table = eni_table(eni.card, device);
        for (priority, effect) in [
            (
                RULE_ENI,
                "pods on this ENI send by the primary one, and the VPC drops it",
            ),
            (
                RULE_ENI_ADDRESS,
                "the node does not answer on this ENI's own address",
            ),
        ] {
            if !has(priority, table) {
                missing(
                    format!("the rule {priority} to table {table} of {}", eni.id),
                    effect,
                );
            }
        }
    }
    findings.extend(strangers(&present));
    Check::new(NAME, format!("{} of ours", ours.len()), findings)
}

/// Rules of others that are asked before ENIs' tables, such as those of the AWS VPC CNI after a migration.
fn strangers(present: &[Rule]) -> Option<Finding> {
    let foreign: Vec<_> = present
        .iter()
        .filter(|r| r.protocol != PROTOCOL && (1..RULE_ENI_ADDRESS).contains(&r.priority))
        .map(|r| format!("{} to table {}", r.priority, r.table))
        .collect();
    if foreign.is_empty() {
        return None;
    }
    let shown = foreign
        .iter()
        .take(5)
        .cloned()
        .collect::<Vec<_>>()
        .join(", ");
    Some(warning(
        format!("{} rules of other programs come before ours", foreign.len()),
        shown,
        "packets that they match do not go the way of their ENI",
        "remove what an earlier network plugin left; a node restart does so",
    ))
}

/// A route to every pod.
fn routes(socket: &mut Socket, view: Option<&View>) -> Check {
    const NAME: &str = "routes";
    let pods: Vec<_> = view
        .into_iter()
        .flat_map(|view| &view.enis)
        .flat_map(|eni| &eni.addresses)
        .filter(|address| address.state == "assigned")
        .filter_map(|address| Some((address.address?, address)))
        .collect();
    let routed: BTreeSet<IpAddr> = match socket.routes(Family::V4, Some(PODS_TABLE)) {
        Ok(routes) => routes.iter().map(|route| route.dst.addr()).collect(),
        Err(error) => return blind(NAME, &error),
    };
    let lost = pods
        .iter()
        .filter(|(address, _)| address.is_ipv4() && !routed.contains(address));
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

/// Our table is there, and no other network plugin's is.
fn nftables() -> Check {
    const NAME: &str = "nftables";
    let listed = match Nft::open().and_then(|mut nft| nft.list()) {
        Ok(listed) => listed,
        Err(error) => return blind(NAME, &error),
    };
    let ours = listed
        .iter()
        .any(|object| matches!(object, Listed::Table { family: 2, name } if name == TABLE));
    let marks = listed.iter().any(
        |object| matches!(object, Listed::Rule { table, chain, .. } if table == TABLE && chain == "choose_eni"),
    );
    let mut findings = Vec::new();
    if !ours || !marks {
        let what = if ours {
            "its chain choose_eni is empty"
        } else {
            "it is not there"
        };
        findings.push(failure(
            "table ip hawser is not as it shall be",
            what,
            "pods on secondary ENIs send by the primary one, and what leaves the VPC keeps its pod's address",
            REPAIR,
        ));
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
            "remove the aws-node daemon set, and restart the node or delete its chains",
        ));
    }
    Check::new(
        NAME,
        format!("table ip {TABLE} stands among {} objects", listed.len()),
        findings,
    )
}
