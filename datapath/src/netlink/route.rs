//! Routes. Builds requests and parses answers; makes no decisions.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol,
};
pub use netlink_packet_route::route::{RouteScope as Scope, RouteType as Kind};

use super::{Error, Family, Request, Socket, family};
use crate::constants::PROTOCOL;

/// The main table.
pub const MAIN: u32 = 254;
/// The table of the namespace's own addresses, which the kernel maintains.
pub const LOCAL: u32 = 255;

/// A route with one next hop, or without one (blackhole, unreachable).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// Destination; /0 is the default route.
    pub dst: IpNet,
    /// Table number.
    pub table: u32,
    /// `Link` for destinations on the link, `Universe` for those behind a gateway, and for everything that IPv6 lists.
    pub scope: Scope,
    /// `Unicast`, `BlackHole`, `Unreachable` and so on.
    pub kind: Kind,
    /// The program that created it (`rtm_protocol`).
    pub protocol: u8,
    /// Next hop.
    pub gateway: Option<IpAddr>,
    /// Index of the outgoing link.
    pub oif: Option<u32>,
    /// The source address for local sockets.
    pub source: Option<IpAddr>,
    /// Lower values take precedence; part of the route's identity. IPv4 reports none for 0, IPv6 uses 1024 for none.
    pub metric: Option<u32>,
    /// The gateway is treated as on-link, whatever the routes say.
    pub onlink: bool,
}

impl Route {
    /// `dst` is on the link `oif`. With our protocol.
    #[must_use]
    pub fn link(dst: impl Into<IpNet>, oif: u32, table: u32) -> Self {
        Self {
            dst: dst.into(),
            table,
            scope: Scope::Link,
            kind: Kind::Unicast,
            protocol: PROTOCOL,
            gateway: None,
            oif: Some(oif),
            source: None,
            metric: None,
            onlink: false,
        }
    }

    /// `dst` is behind `gateway`, on link `oif`. With our protocol.
    #[must_use]
    pub fn via(dst: impl Into<IpNet>, gateway: impl Into<IpAddr>, oif: u32, table: u32) -> Self {
        Self {
            scope: Scope::Universe,
            gateway: Some(gateway.into()),
            ..Self::link(dst, oif, table)
        }
    }

    /// `address` is a local address of this namespace, on link `oif`.
    ///
    /// The kernel creates such a route for every address, but for IPv6 it does so later, in a work queue. On a busy
    /// machine, packets to an address that was just set are dropped. Our own route, which is created with the address,
    /// covers this time and has no effect beside the kernel's route.
    #[must_use]
    pub fn own(address: impl Into<IpAddr>, oif: u32) -> Self {
        Self {
            scope: Scope::Host,
            kind: Kind::Local,
            ..Self::link(IpNet::from(address.into()), oif, LOCAL)
        }
    }

    /// `dst` is discarded: [`Kind::BlackHole`] drops silently, [`Kind::Unreachable`] answers with ICMP.
    #[must_use]
    pub fn nowhere(dst: impl Into<IpNet>, kind: Kind, table: u32) -> Self {
        Self {
            scope: Scope::Universe,
            kind,
            oif: None,
            ..Self::link(dst, 0, table)
        }
    }

    /// Parses a `RTM_NEWROUTE` or `RTM_DELROUTE`; `None` for any other message or family, and for routes with several
    /// next hops (none of ours).
    #[must_use]
    pub fn from_message(message: &RouteNetlinkMessage) -> Option<Self> {
        let (RouteNetlinkMessage::NewRoute(message) | RouteNetlinkMessage::DelRoute(message)) =
            message
        else {
            return None;
        };
        let header = &message.header;
        let family = family::from_code(header.address_family)?;
        let length = header.destination_prefix_length;
        let mut route = Self {
            dst: IpNet::new(family.everything().addr(), length).ok()?,
            table: header.table.into(),
            scope: header.scope,
            kind: header.kind,
            protocol: header.protocol.into(),
            gateway: None,
            oif: None,
            source: None,
            metric: None,
            onlink: header.flags.contains(RouteFlags::Onlink),
        };
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(to) => route.dst = IpNet::new(ip(to)?, length).ok()?,
                RouteAttribute::Table(table) => route.table = *table,
                RouteAttribute::Gateway(via) => route.gateway = ip(via),
                RouteAttribute::Oif(index) => route.oif = Some(*index),
                RouteAttribute::PrefSource(from) => route.source = ip(from),
                RouteAttribute::Priority(metric) => route.metric = Some(*metric),
                RouteAttribute::MultiPath(_) => return None,
                _ => {}
            }
        }
        Some(route)
    }
}

/// Adds the route; `EEXIST` if the table has one with the same destination and metric.
#[must_use]
pub fn add(route: &Route) -> Request {
    Request::create("route add", RouteNetlinkMessage::NewRoute(message(route)))
}

/// Adds the route or replaces, without a gap, the first one with the same destination and metric.
#[must_use]
pub fn replace(route: &Route) -> Request {
    Request::replace(
        "route replace",
        RouteNetlinkMessage::NewRoute(message(route)),
    )
}

/// Removes the route that matches in all given properties; `ESRCH` if there is none.
#[must_use]
pub fn del(route: &Route) -> Request {
    Request::ack(
        "route del",
        RouteNetlinkMessage::DelRoute(message(route)),
        0,
    )
}

/// Removes the first route to `dst` in `table`, with any link and protocol.
#[must_use]
pub fn del_by_dst(dst: impl Into<IpNet>, table: u32) -> Request {
    // For a deletion, scope "nowhere" is the wildcard, and so are type and protocol "unspecified".
    let any = Route {
        scope: Scope::NoWhere,
        kind: Kind::Unspec,
        protocol: 0,
        oif: None,
        ..Route::link(dst, 0, table)
    };
    Request::ack("route del", RouteNetlinkMessage::DelRoute(message(&any)), 0)
}

/// Lists all routes of a family, or those of one table (kernels before 4.20 ignore the filter).
#[must_use]
pub fn dump(family: Family, table: Option<u32>) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = family::code(family);
    message.attributes.extend(table.map(RouteAttribute::Table));
    Request::dump("route dump", RouteNetlinkMessage::GetRoute(message))
}

/// Lists the routes of one table over one link.
#[must_use]
pub fn dump_over(family: Family, table: u32, oif: u32) -> Request {
    let mut request = dump(family, Some(table));
    if let RouteNetlinkMessage::GetRoute(message) = &mut request.message {
        message.attributes.push(RouteAttribute::Oif(oif));
    }
    request
}

impl Socket {
    /// The routes of one table over one link.
    ///
    /// # Errors
    /// As [`Socket::routes`].
    pub fn routes_over(
        &mut self,
        family: Family,
        table: u32,
        oif: u32,
    ) -> Result<Vec<Route>, Error> {
        let wanted = |r: &Route| r.table == table && r.oif == Some(oif);
        self.list_routes(&dump_over(family, table, oif), wanted)
    }

    /// All routes of a family in the namespace, or those of one table.
    ///
    /// # Errors
    /// As [`Socket::dump`]. A table that was never written to is empty.
    pub fn routes(&mut self, family: Family, table: Option<u32>) -> Result<Vec<Route>, Error> {
        self.list_routes(&dump(family, table), |r| table.is_none_or(|t| r.table == t))
    }

    fn list_routes(
        &mut self,
        request: &Request,
        wanted: impl Fn(&Route) -> bool,
    ) -> Result<Vec<Route>, Error> {
        let read = |message: &_| Route::from_message(message).filter(&wanted);
        match self.dump(request, read) {
            Err(e) if e.is_gone() => Ok(Vec::new()),
            other => other,
        }
    }
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

fn message(route: &Route) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family::code(Family::of_net(route.dst)),
        destination_prefix_length: route.dst.prefix_len(),
        source_prefix_length: 0,
        tos: 0,
        // Numbers above 255 need an attribute, and this field must then be RT_TABLE_UNSPEC.
        table: u8::try_from(route.table).unwrap_or(0),
        protocol: RouteProtocol::from(route.protocol),
        scope: route.scope,
        kind: route.kind,
        flags: if route.onlink {
            RouteFlags::Onlink
        } else {
            RouteFlags::empty()
        },
    };
    let attributes = &mut message.attributes;
    if route.table > 255 {
        attributes.push(RouteAttribute::Table(route.table));
    }
    if route.dst.prefix_len() > 0 {
        attributes.push(RouteAttribute::Destination(route.dst.addr().into()));
    }
    attributes.extend(route.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
    attributes.extend(route.oif.map(RouteAttribute::Oif));
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    attributes.extend(route.metric.map(RouteAttribute::Priority));
    message
}
