//! A secondary ENI: its link, its address, its table, the rules that lead there.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use super::{During, HostError, ensure_link, rules};
use crate::constants::{MARK_ENI_MASK, MAX_ENI_INDEX, PROTOCOL, RULE_ENI, RULE_ENI_ADDRESS};
use crate::netlink::addr::{self, Address};
use crate::netlink::link::Link;
use crate::netlink::route::{self, MAIN, Route};
use crate::netlink::rule::{self, Rule};
use crate::netlink::{Errno, Error, Family, Mac, Report, Socket, wait_for_link_by_mac};

/// A secondary ENI, as it shall be on the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniLink {
    /// Its MAC address, by which its link is found.
    pub mac: Mac,
    /// Its own address, not one of a pod.
    pub primary: Ipv4Addr,
    /// The subnet it is in; the VPC's router has the first address after the subnet's base.
    pub subnet: Ipv4Net,
    /// Its route table; see [`eni_table`](crate::constants::eni_table).
    pub table: u32,
    /// Its index in marks and link groups, from 1.
    pub index: u16,
    /// In bytes.
    pub mtu: u32,
}

/// Brings a secondary ENI about. Waits up to `patience` for its link to appear: EC2 reports an ENI attached before the
/// node's driver has seen it. The calling thread must be in the socket's namespace. Returns the link's index.
///
/// # Errors
/// [`HostError`]; what was done before the failure stays, as a repetition would do it again.
pub fn add_eni(socket: &mut Socket, eni: &EniLink, patience: Duration) -> Result<u32, HostError> {
    validate(eni)?;
    let link = wait_for_link_by_mac(socket, eni.mac, patience)
        .during("find the ENI's link")?
        .ok_or(HostError::LinkMissing { mac: eni.mac })?;
    ensure(socket, eni, &link)?;
    Ok(link.index)
}

/// All of it, over a link that is there.
pub(super) fn ensure(socket: &mut Socket, eni: &EniLink, link: &Link) -> Result<(), HostError> {
    let gateway = validate(eni)?;
    ensure_link(socket, link, eni.mtu)?;
    ensure_address(socket, eni, link.index).during("set the ENI's address")?;
    ensure_routes(socket, eni.table, link.index, gateway).during("set up the ENI's table")?;
    // The table is complete before anything leads there.
    let mark = Rule::mark(
        Family::V4,
        RULE_ENI,
        eni.index.into(),
        MARK_ENI_MASK,
        eni.table,
    );
    rules::ensure(socket, &mark, |r| {
        r.priority == RULE_ENI && (r.mark == mark.mark || r.table == mark.table)
    })?;
    let from = Rule::from(RULE_ENI_ADDRESS, eni.primary, eni.table);
    rules::ensure(socket, &from, |r| {
        r.priority == RULE_ENI_ADDRESS && (r.from == from.from || r.table == from.table)
    })?;
    Ok(())
}

/// Takes away what leads to an ENI: the rules, the table's routes. In the reverse order, so that no packet is sent to a
/// table that is empty. Its pods must be gone; its link may be.
///
/// # Errors
/// Every failure; the rest is gone all the same.
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

/// The address of the subnet's router.
fn validate(eni: &EniLink) -> Result<Ipv4Addr, HostError> {
    if !(1..=MAX_ENI_INDEX).contains(&eni.index) {
        return Err(HostError::Index { index: eni.index });
    }
    // VPC subnets are /16 to /28; a /31 or /32 would have its "router" outside.
    let gateway = Ipv4Addr::from(u32::from(eni.subnet.network()).wrapping_add(1));
    if eni.subnet.prefix_len() > 30 || !eni.subnet.contains(&eni.primary) {
        return Err(HostError::Subnet { subnet: eni.subnet });
    }
    Ok(gateway)
}

/// The ENI's own address and no other.
///
/// `IFA_F_NOPREFIXROUTE`: the kernel's connected route for the subnet would go to main, where the primary ENI, in the
/// same subnet or not, has the only say; the node's own traffic to that subnet would leave by this ENI with the
/// primary's address, and be dropped by the VPC. Addresses that somebody else put there (ec2-net-utils,
/// systemd-networkd) are pods' addresses: as local ones they would swallow the pods' packets.
fn ensure_address(socket: &mut Socket, eni: &EniLink, index: u32) -> Result<(), Error> {
    let prefix_len = eni.subnet.prefix_len();
    let wanted = Address {
        prefix_len,
        no_prefix_route: true,
        ..Address::host(index, eni.primary)
    };
    let present = socket.addresses(Family::V4, Some(index))?;
    let same = |a: &Address| (a.address, a.prefix_len) == (wanted.address, wanted.prefix_len);
    if !present.iter().any(same) {
        exists_ok(socket.apply(&addr::add(&wanted)))?;
    }
    let strays: Vec<_> = present.iter().filter(|a| !same(a)).map(addr::del).collect();
    if !strays.is_empty() {
        socket.batch(&strays).and_then(rules::all_gone)?;
        // The kernel deletes a subnet's later addresses together with its first, and ours may have been a later one.
        exists_ok(socket.apply(&addr::add(&wanted)))?;
    }
    // An address that was there without the flag cannot be given it (the kernel ignores it for an existing address),
    // but its route can go.
    let connected = |r: &Route| r.gateway.is_none() && r.dst == eni.subnet.trunc().into();
    let routes = socket.routes_over(Family::V4, MAIN, index)?;
    let requests: Vec<_> = routes
        .iter()
        .filter(|r| connected(r))
        .map(route::del)
        .collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

/// The router is on the wire, and everything is behind it. Other routes of ours in the table are from another life.
fn ensure_routes(
    socket: &mut Socket,
    table: u32,
    oif: u32,
    gateway: Ipv4Addr,
) -> Result<(), Error> {
    let wanted = [
        Route::link(Ipv4Net::from(gateway), oif, table),
        Route::via(Ipv4Net::default(), gateway, oif, table),
    ];
    let present = socket.routes(Family::V4, Some(table))?;
    let missing = wanted.iter().filter(|r| !present.contains(r));
    let requests: Vec<_> = missing.map(route::replace).collect();
    socket.batch(&requests).and_then(Report::ok)?;
    // What "replace" replaced has the same destination.
    let wrong = present
        .iter()
        .filter(|r| r.protocol == PROTOCOL && wanted.iter().all(|w| w.dst != r.dst));
    let requests: Vec<_> = wrong.map(route::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

fn remove_rules(socket: &mut Socket, table: u32) -> Result<(), Error> {
    let requests: Vec<_> = rules::leading_to(socket, table)?
        .iter()
        .map(rule::del)
        .collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

fn remove_routes(socket: &mut Socket, table: u32) -> Result<(), Error> {
    let mut routes = socket.routes(Family::V4, Some(table))?;
    routes.retain(|r| r.protocol == PROTOCOL);
    // The default route first: its gateway is found by the other.
    routes.sort_by_key(|r| r.dst.prefix_len());
    let requests: Vec<_> = routes.iter().map(route::del).collect();
    socket.batch(&requests).and_then(rules::all_gone)
}

fn exists_ok(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(e) if e.is(Errno::EEXIST) => Ok(()),
        other => other,
    }
}
