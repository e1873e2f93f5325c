//! What every pod of the node needs: forwarding, the rules for local pods and for the primary ENI, and nftables.
//!
//! Like every part of this folder it compares first, and then changes what differs.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::config::HostConfig;
use super::error::{During, HostError};
use super::{eni, ipv6, migration, rules, sysctl};
use crate::constants::{
    GROUP_ENI, NODE_LOCAL_PREFIX, PODS_TABLE, RULE_HOST_RESUME, RULE_HOST_SKIP, RULE_NODE_LOCAL,
    RULE_PODS, RULE_PRIMARY,
};
use crate::netlink::link::Link;
use crate::netlink::route::MAIN;
use crate::netlink::rule::{Action, Rule};
use crate::netlink::{Error, Family, Kind, Socket, wait_for_link_by_mac};
use crate::nft::{Nft, Ruleset};

/// A node that is ready for pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The primary ENI's link.
    pub link: Link,
    /// The source address of the node's own packets to pods: the primary ENI's, while the node has it.
    pub source: Option<IpAddr>,
}

/// Configures what every pod of the node needs: forwarding, the primary ENI, the rules for local pods and for packets
/// through the primary ENI, source translation, and the marking of packets for their pod's ENI. Marks of an earlier
/// version are replaced without a gap. The calling thread must be in the socket's namespace.
///
/// # Errors
/// [`HostError`]. Completed steps are not undone, because a repetition would do them again.
pub fn prepare(socket: &mut Socket, config: &HostConfig) -> Result<Prepared, HostError> {
    let link = primary_link(socket, config)?;
    let migration = match config.pods {
        Family::V4 => {
            let present = socket.rules(Family::V4).during("look at rules")?;
            migration::plan(&present, config.egress.marks, config.primary.table)
        }
        Family::V6 => None,
    };
    if let Some(migration) = &migration {
        // The primary's table must be complete before a mark leads there.
        eni::ensure_table(socket, &config.primary, &link)?;
        migration.begin.apply(socket)?;
        write_nftables(socket, config, link.index)?;
        migration.end.apply(socket)?;
    }
    let prepared = ensure(socket, config)?;
    write_nftables(socket, config, prepared.link.index)?;
    Ok(prepared)
}

fn primary_link(socket: &mut Socket, config: &HostConfig) -> Result<Link, HostError> {
    let mac = config.primary.mac;
    wait_for_link_by_mac(socket, mac, config.primary.address, Duration::ZERO)
        .during("find the primary ENI")?
        .ok_or(HostError::LinkMissing { mac })
}

fn write_nftables(socket: &mut Socket, config: &HostConfig, primary: u32) -> Result<(), HostError> {
    let ruleset = ruleset(config, primary)?;
    nft(socket)?.replace(&ruleset).during("set up nftables")
}

/// All of it except nftables.
pub(super) fn ensure(socket: &mut Socket, config: &HostConfig) -> Result<Prepared, HostError> {
    if config.pods == Family::V6 {
        let link = primary_link(socket, config)?;
        ipv6::ensure(socket, &link, config.primary.mtu)?;
        let mut wanted = Vec::new();
        if config.other_family() {
            if sysctl::ensure_forwarding()? {
                socket.count(Kind::Setting);
            }
            wanted.push(Rule::all(Family::V4, RULE_PODS, PODS_TABLE));
        }
        let present = socket.rules(Family::V4).during("look at rules")?;
        rules::diff(&present, &wanted, |r| r.priority == RULE_PODS).apply(socket)?;
        let own = socket.addresses(Family::V6, Some(link.index));
        let source = ipv6::primary_address(&own.during("look at addresses")?);
        return Ok(Prepared { link, source });
    }
    if sysctl::ensure_forwarding()? {
        socket.count(Kind::Setting);
    }
    let link = primary_link(socket, config)?;
    if config.other_family() {
        ipv6::ensure(socket, &link, config.primary.mtu)?;
    } else if sysctl::has_ipv6() {
        let present = socket.rules(Family::V6).during("look at rules")?;
        rules::diff(&present, &[], |r| r.priority == RULE_PODS).apply(socket)?;
    }
    eni::ensure(socket, &config.primary, config.egress.marks, &link)?;
    let what = "look at rules and addresses";
    let present = socket.rules(Family::V4).during(what)?;
    diff_rules(&present, config).apply(socket)?;
    let source = config.primary.address;
    let addresses = socket.addresses(Family::V4, None).during(what)?;
    let has_source = addresses.iter().any(|a| a.address == source);
    Ok(Prepared {
        link,
        source: has_source.then_some(source.into()),
    })
}

/// The rules of the node that belong to no ENI.
fn diff_rules(present: &[Rule], config: &HostConfig) -> rules::Diff {
    let egress = &config.egress;
    let bit = egress.marks.primary();
    let v4 = Family::V4;
    let to_primary = Rule::mark(v4, RULE_PRIMARY, bit, bit, config.primary.table);
    let node_local = Rule {
        suppress_prefix: Some(NODE_LOCAL_PREFIX - 1),
        suppress_group: Some(GROUP_ENI),
        ..Rule::mark(v4, RULE_NODE_LOCAL, bit, bit, MAIN)
    };
    // In this order: a packet that meets one of the last two only is routed as before.
    let wanted = vec![
        Rule::all(v4, RULE_PODS, PODS_TABLE),
        Rule::without_table(v4, RULE_HOST_RESUME, Action::Nop),
        Rule {
            // What the node sends itself comes from the loopback, as far as rules are concerned.
            iif: Some("lo".to_owned()),
            ..Rule::without_table(v4, RULE_HOST_SKIP, Action::Goto(RULE_HOST_RESUME))
        },
        to_primary,
        node_local,
    ];
    let ours = [
        RULE_PODS,
        RULE_HOST_SKIP,
        RULE_NODE_LOCAL,
        RULE_PRIMARY,
        RULE_HOST_RESUME,
    ];
    rules::diff(present, &wanted, |r| ours.contains(&r.priority))
}

/// Changes the local destinations, and nothing else. `config` must be what was prepared last; it gets the new destinations. If
/// the kernel no longer has what was prepared, everything is prepared again.
///
/// # Errors
/// As [`prepare`]; `config` is then unchanged.
pub fn update_local(
    socket: &mut Socket,
    config: &mut HostConfig,
    local: Vec<Ipv4Net>,
) -> Result<(), HostError> {
    let old = std::mem::replace(&mut config.egress.local, local);
    // Without translation no chain uses them.
    let done = match config.egress.snat {
        None => Ok(()),
        Some(_) => nft(socket).and_then(|mut nft| match nft.update_local(&config.egress) {
            Err(e) if e.is_gone() => prepare(socket, config).map(drop),
            other => other.during("change the local destinations"),
        }),
    };
    if done.is_err() {
        config.egress.local = old;
    }
    done
}

/// The desired contents of nftables. `primary`: link index of the primary ENI.
pub(super) fn ruleset(config: &HostConfig, primary: u32) -> Result<Ruleset, HostError> {
    let loose = sysctl::source_check_is_loose()?;
    Ok(config.ruleset(primary, loose, sysctl::has_ipv6()))
}

/// A netfilter socket in the namespace of `socket`, which must be the calling thread's.
pub(super) fn nft(socket: &Socket) -> Result<Nft, HostError> {
    let op = "open nftables";
    let nft = Nft::open().during(op)?;
    let same = socket.netns_id().during(op)? == nft.netns_id().during(op)?;
    if same {
        Ok(nft)
    } else {
        Err(Error::ForeignNamespace { op }).during(op)
    }
}
