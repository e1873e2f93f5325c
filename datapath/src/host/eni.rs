//! A secondary ENI: its link, its address, its table, and the rules for this table.

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

/// The desired configuration of a secondary ENI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EniLink {
    /// Its MAC address, which identifies its link.
    pub mac: Mac,
    /// Its own address, which no pod uses.
    pub primary: Ipv4Addr,
    /// Its subnet. The VPC's router has the first address after the subnet's base.
    pub subnet: Ipv4Net,
    /// Its route table; see [`eni_table`](crate::constants::eni_table).
    pub table: u32,
    /// Its index in marks and link groups, from 1.
    pub index: u16,
    /// In bytes.
    pub mtu: u32,
}

/// Configures a secondary ENI. Waits up to `patience` for its link to appear: EC2 reports an ENI as attached before the
/// node's driver has created the link. The calling thread must be in the socket's namespace. Returns the link's index.
///
/// # Errors
/// [`HostError`]. Completed steps are not undone, because a repetition would do them again.
pub fn add_eni(socket: &mut Socket, eni: &EniLink, patience: Duration) -> Result<u32, HostError> {
    validate(eni)?;
    let link = wait_for_link_by_mac(socket, eni.mac, patience)
        .during("find the ENI's link")?
        .ok_or(HostError::LinkMissing { mac: eni.mac })?;
    ensure(socket, eni, &link)?;
    Ok(link.index)
}

/// All of it, with an existing link.
pub(super) fn ensure(socket: &mut Socket, eni: &EniLink, link: &Link) -> Result<(), HostError> {
    let gateway = validate(eni)?;
    ensure_link(socket, link, eni.mtu)?;
    ensure_address(socket, eni, link.index).during("set the ENI's address")?;
    ensure_routes(socket, eni.table, link.index, gateway).during("set up the ENI's table")?;
    // The table is complete before any rule uses it.
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

/// The address of the subnet's router.
fn validate(eni: &EniLink) -> Result<Ipv4Addr, HostError> {
    if !(1..=MAX_ENI_INDEX).contains(&eni.index) {
        return Err(HostError::Index { index: eni.index });
    }
    // VPC subnets are /16 to /28. The "router" of a /31 or /32 would be outside the subnet.
    let gateway = Ipv4Addr::from(u32::from(eni.subnet.network()).wrapping_add(1));
    if eni.subnet.prefix_len() > 30 || !eni.subnet.contains(&eni.primary) {
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
    // The route that "replace" replaced has the same destination.
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
    // The default route first: its gateway is reached through the other route.
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
