//! An ENI: its link, its address, its table, and the rules for this table.
//!
//! [`diff`] is pure: from what the kernel has to the requests that are missing. The primary ENI has a table and a rule like
//! every other; its address and its routes in main belong to the node.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::error::{During, HostError};
use super::{link as eni_link, rules};
use crate::constants::{PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS};
use crate::marks::Marks;
use crate::netlink::addr::{self, Address};
use crate::netlink::link::Link;
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Errno, Error, Family, Mac, Report, Request, Socket, wait_for_link_by_mac};
use nettypes::EniIndex;

/// The desired configuration of an ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniLink {
    /// Its MAC address, which identifies its link.
    pub mac: Mac,
    /// Its own address, which no pod uses.
    pub address: Ipv4Addr,
    /// Its subnet. The VPC's router has the first address after the subnet's base.
    pub subnet: Ipv4Net,
    /// Its route table; see [`eni_table`](crate::constants::eni_table).
    pub table: u32,
    /// Its index in marks and link groups.
    pub index: EniIndex,
    /// In bytes.
    pub mtu: u32,
}

/// What the kernel has of an ENI.
#[derive(Debug)]
struct Observed {
    link: Link,
    /// On the link.
    addresses: Vec<Address>,
    /// In the ENI's table.
    routes: Vec<Route>,
    /// In main, over the link.
    main: Vec<Route>,
    rules: Vec<Rule>,
}

/// What must change, in this order: a table is complete before any rule uses it.
#[derive(Debug)]
struct Diff {
    link: Vec<Request>,
    /// Additions tolerate what exists, deletions what is gone.
    addresses: Vec<Request>,
    routes: Vec<Request>,
    rules: rules::Diff,
    /// Only deletions.
    stale_routes: Vec<Request>,
}

/// Configures a secondary ENI. Waits up to `patience` for its link to appear: EC2 reports an ENI as attached before the
/// node's driver has created the link. The calling thread must be in the socket's namespace. Returns the link's index.
///
/// # Errors
/// [`HostError`]. Completed steps are not undone, because a repetition would do them again.
pub fn add_eni(
    socket: &mut Socket,
    eni: &EniLink,
    marks: Marks,
    patience: Duration,
) -> Result<u32, HostError> {
    validate(eni, marks)?;
    let link = wait_for_link_by_mac(socket, eni.mac, eni.address, patience)
        .during("find the ENI's link")?
        .ok_or(HostError::LinkMissing { mac: eni.mac })?;
    ensure(socket, eni, marks, &link)?;
    Ok(link.index)
}

/// All of it, with an existing link.
pub(super) fn ensure(
    socket: &mut Socket,
    eni: &EniLink,
    marks: Marks,
    link: &Link,
) -> Result<(), HostError> {
    let observed = Observed::of(socket, eni, link)?;
    diff(eni, marks, &observed)?.apply(socket)
}

/// The link and the table only, without a rule.
pub(super) fn ensure_table(
    socket: &mut Socket,
    eni: &EniLink,
    link: &Link,
) -> Result<(), HostError> {
    let observed = Observed::of(socket, eni, link)?;
    let (missing, _stale) = diff_routes(eni, gateway(eni)?, &observed);
    eni_link::ensure(socket, link, eni.mtu)?;
    socket
        .batch(&missing)
        .and_then(Report::ok)
        .during("set up the ENI's table")
}

impl Observed {
    fn of(socket: &mut Socket, eni: &EniLink, link: &Link) -> Result<Self, HostError> {
        let what = "look at the ENI";
        Ok(Self {
            link: link.clone(),
            addresses: socket
                .addresses(Family::V4, Some(link.index))
                .during(what)?,
            routes: socket.routes(Family::V4, Some(eni.table)).during(what)?,
            main: socket
                .routes_over(Family::V4, MAIN, link.index)
                .during(what)?,
            rules: socket.rules(Family::V4).during(what)?,
        })
    }
}

/// The difference between the desired configuration and what the kernel has.
fn diff(eni: &EniLink, marks: Marks, observed: &Observed) -> Result<Diff, HostError> {
    let mark = validate(eni, marks)?;
    let gateway = gateway(eni)?;
    let (routes, stale_routes) = diff_routes(eni, gateway, observed);
    let is_primary = eni.index == EniIndex::PRIMARY;
    let mark = Rule::mark(Family::V4, RULE_ENI, mark, marks.eni_mask(), eni.table);
    let from = Rule::from(RULE_ENI_ADDRESS, eni.address, eni.table);
    let rival = |r: &Rule| match r.priority {
        RULE_ENI => r.mark == mark.mark || r.table == eni.table,
        RULE_ENI_ADDRESS => r.from == from.from || r.table == eni.table,
        _ => false,
    };
    let mut wanted = vec![mark.clone()];
    // The node's own traffic with the primary's address is routed by main, as on every host.
    wanted.extend((!is_primary).then(|| from.clone()));
    Ok(Diff {
        link: eni_link::diff(&observed.link, eni.mtu),
        addresses: if is_primary {
            Vec::new()
        } else {
            diff_addresses(eni, observed)
        },
        routes,
        rules: rules::diff(&observed.rules, &wanted, rival),
        stale_routes,
    })
}

impl Diff {
    fn apply(&self, socket: &mut Socket) -> Result<(), HostError> {
        socket
            .batch(&self.link)
            .and_then(Report::ok)
            .during("set up the ENI's link")?;
        socket
            .batch(&self.addresses)
            .and_then(settled)
            .during("set the ENI's address")?;
        let what = "set up the ENI's table";
        socket
            .batch(&self.routes)
            .and_then(Report::ok)
            .during(what)?;
        self.rules.apply(socket)?;
        socket
            .batch(&self.stale_routes)
            .and_then(rules::all_gone)
            .during(what)
    }
}

/// Removes an ENI's rules and then its routes, so that no packet is sent to an empty table. Its pods must already be
/// deleted; its link may be missing.
///
/// # Errors
/// Every failure. Everything else is removed.
pub fn remove_eni(socket: &mut Socket, table: u32) -> Result<(), Vec<HostError>> {
    let steps = [
        remove_rules(socket, table).during("remove the ENI's rules"),
        remove_routes(socket, table).during("empty the ENI's table"),
    ];
    let errors: Vec<_> = steps.into_iter().filter_map(Result::err).collect();
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// The ENI's mark.
fn validate(eni: &EniLink, marks: Marks) -> Result<u32, HostError> {
    gateway(eni)?;
    let mark = marks.of(eni.index);
    mark.ok_or(HostError::Index {
        index: eni.index,
        mask: marks.eni_mask(),
    })
}

/// The address of the subnet's router.
fn gateway(eni: &EniLink) -> Result<Ipv4Addr, HostError> {
    // VPC subnets are /16 to /28. The "router" of a /31 or /32 would be outside the subnet.
    let gateway = Ipv4Addr::from(u32::from(eni.subnet.network()).wrapping_add(1));
    if eni.subnet.prefix_len() > 30 || !eni.subnet.contains(&eni.address) {
        return Err(HostError::Subnet { subnet: eni.subnet });
    }
    Ok(gateway)
}

/// The ENI's own address, and no other.
///
/// With `IFA_F_NOPREFIXROUTE`. The kernel's connected route for the subnet would be in main, which belongs to the
/// primary ENI, even if that is in the same subnet. The node's own traffic to this subnet would leave through this ENI
/// with the primary's address, and the VPC would drop it. Addresses that other programs added (ec2-net-utils,
/// systemd-networkd) are pods' addresses: as local addresses they would receive the pods' packets.
///
/// Routes that a DHCP client keeps in main are left alone: pods do not depend on them, and the client would put them back.
fn diff_addresses(eni: &EniLink, observed: &Observed) -> Vec<Request> {
    let index = observed.link.index;
    let prefix_len = eni.subnet.prefix_len();
    let wanted = Address {
        prefix_len,
        no_prefix_route: true,
        ..Address::host(index, eni.address)
    };
    let same = |a: &&Address| (a.address, a.prefix_len) == (wanted.address, wanted.prefix_len);
    let mut requests = Vec::new();
    if !observed.addresses.iter().any(|a| same(&a)) {
        requests.push(addr::add(&wanted));
    }
    let strays = observed.addresses.iter().filter(|a| !same(a));
    let strays: Vec<_> = strays.map(addr::del).collect();
    if !strays.is_empty() {
        requests.extend(strays);
        // The kernel deletes a subnet's later addresses together with its first, and ours may have been a later one.
        requests.push(addr::add(&wanted));
    }
    // An address that was there without the flag cannot be given it (the kernel ignores it for an existing address),
    // but its route can go.
    let connected = |r: &&Route| r.gateway.is_none() && r.dst == eni.subnet.trunc().into();
    requests.extend(observed.main.iter().filter(connected).map(route::del));
    requests
}

/// The router is on the wire, and everything is behind it. Other routes of ours in the table are stale.
fn diff_routes(
    eni: &EniLink,
    gateway: Ipv4Addr,
    observed: &Observed,
) -> (Vec<Request>, Vec<Request>) {
    let oif = observed.link.index;
    let wanted = [
        Route::link(Ipv4Net::from(gateway), oif, eni.table),
        Route::via(Ipv4Net::default(), gateway, oif, eni.table),
    ];
    let present = &observed.routes;
    let missing = wanted.iter().filter(|r| !present.contains(r));
    // The route that "replace" replaces has the same destination.
    let stale = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && wanted.iter().all(|w| w.dst != r.dst));
    (
        missing.map(route::replace).collect(),
        stale.map(route::del).collect(),
    )
}

fn remove_rules(socket: &mut Socket, table: u32) -> Result<(), Error> {
    let mut ours = socket.rules(Family::V4)?;
    ours.retain(|r| r.protocol == PROTOCOL && r.table == table);
    let requests: Vec<_> = ours.iter().map(rule::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

fn remove_routes(socket: &mut Socket, table: u32) -> Result<(), Error> {
    let mut routes = socket.routes(Family::V4, Some(table))?;
    routes.retain(|r| r.protocol == PROTOCOL);
    // The default route first: its gateway is reached through the other route.
    routes.sort_by_key(|r| r.dst.prefix_len());
    let requests: Vec<_> = routes.iter().map(route::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

/// What exists was to be added, and what is gone was to be removed.
fn settled(report: Report) -> Result<(), Error> {
    let failed = report.results.into_iter().filter_map(Result::err);
    let mut failed = failed.filter(|e| !e.is(Errno::EEXIST) && !e.is_gone());
    failed.next().map_or(Ok(()), Err)
}
