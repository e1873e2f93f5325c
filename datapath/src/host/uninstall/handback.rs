//! Handing pods back to the AWS VPC CNI: its rules and routes beside ours first, and ours removed when its daemon runs.
//!
//! In between, both serve every pod. Each function can be repeated.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::error::{During, HostError};
use super::super::node::nft;
use super::super::sysctl;
use super::{release_enis, remove_routing};
use crate::constants::{PODS_TABLE, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS, RULE_PODS, eni_table};
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Errno, Error, Family, Report, Request, Socket};
use crate::pod;

/// `RTPROT_BOOT`: what the AWS VPC CNI's routes have.
const BOOT: u8 = 3;

/// A pod that is handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandedBack {
    /// Index of its host end.
    pub host_index: u32,
    /// Its address.
    pub address: IpAddr,
    /// The table of its ENI; `None` if that is the primary ENI, whose pods the AWS VPC CNI routes by main.
    pub table: Option<u32>,
}

/// Adds for each pod what the AWS VPC CNI has: a route in main, a rule to it, and a rule from it to its ENI's table. Makes the
/// tables of secondary ENIs look like the AWS VPC CNI's. Nothing of ours is removed.
///
/// # Errors
/// The kernel's error. A repetition does the rest.
pub fn restore_classic(socket: &mut Socket, pods: &[HandedBack]) -> Result<(), HostError> {
    restore_tables(socket)?;
    let what = "give a pod the rules of the AWS VPC CNI";
    for pod in pods {
        socket.batch(&classic(pod)).and_then(settled).during(what)?;
    }
    Ok(())
}

fn classic(pod: &HandedBack) -> Vec<Request> {
    let whole = IpNet::from(pod.address);
    let to_pod = Route {
        protocol: BOOT,
        ..Route::link(whole, pod.host_index, MAIN)
    };
    let family = Family::of(pod.address);
    let to = Rule {
        to: Some(whole),
        protocol: 0,
        ..Rule::all(family, RULE_PODS, MAIN)
    };
    // The route first: while there is a rule to main, main must have it.
    let mut requests = vec![route::add(&to_pod), rule::add(&to)];
    requests.extend(pod.table.map(|table| {
        rule::add(&Rule {
            protocol: 0,
            ..Rule::from(RULE_ENI, pod.address, table)
        })
    }));
    requests
}

/// The routes of the tables are replaced in one step each, so a packet finds one of the two.
fn restore_tables(socket: &mut Socket) -> Result<(), HostError> {
    let what = "hand back the tables of ENIs";
    let mut routes = socket.routes(Family::V4, None).during(what)?;
    let own = [PODS_TABLE, MAIN, eni_table(0, 0)];
    routes.retain(|r| r.protocol == PROTOCOL && !own.contains(&r.table));
    let tables: BTreeSet<u32> = routes.iter().map(|r| r.table).collect();
    let theirs = routes.iter().map(|r| Route {
        protocol: BOOT,
        ..*r
    });
    let mut requests: Vec<_> = theirs.map(|r| route::replace(&r)).collect();
    let rules = socket.rules(Family::V4).during(what)?;
    // The kernel has only one of the two.
    let of_enis = rules.iter().filter(|r| {
        r.priority == RULE_ENI_ADDRESS && r.protocol == PROTOCOL && tables.contains(&r.table)
    });
    for ours in of_enis {
        let theirs = Rule {
            protocol: 0,
            ..ours.clone()
        };
        requests.extend([rule::del(ours), rule::add(&theirs)]);
    }
    socket.batch(&requests).and_then(settled).during(what)
}

/// Removes everything of ours, except the pods' links, which become ordinary ones. To be called when the AWS VPC CNI runs:
/// until then, only our chains send connections of pods on secondary ENIs out of the VPC. Returns how many links there were.
///
/// # Errors
/// The kernel's error. A repetition does the rest.
pub fn let_go(socket: &mut Socket) -> Result<usize, HostError> {
    let defaults = sysctl::link_defaults()?;
    let pods = pod::let_go(socket, &defaults).during("give up the pods' links")?;
    remove_routing(socket)?;
    release_enis(socket).during("take the ENIs out of their group")?;
    nft(socket)?.remove().during("remove nftables")?;
    Ok(pods)
}

/// What exists already was added by an earlier attempt.
fn settled(report: Report) -> Result<(), Error> {
    let mut failed = report.results.into_iter().filter_map(Result::err);
    failed
        .find(|e| !e.is(Errno::EEXIST) && !e.is_gone())
        .map_or(Ok(()), Err)
}
