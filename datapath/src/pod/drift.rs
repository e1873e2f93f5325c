//! The differences between the actual and the desired network of a pod. Pure.

use std::net::IpAddr;

use nettypes::HostPort;

use crate::netlink::Mac;
use crate::netlink::link::{Inet6Conf, Link};
use crate::netlink::route::Route;

/// An end of the pair, and the namespace it is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The host's.
    Host,
    /// The pod's.
    Pod,
}

/// One difference between the actual and the desired network of a pod.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the texts say it")]
pub enum Drift {
    #[error("{side:?} link is missing")]
    LinkMissing { side: Side },
    #[error("{side:?} link is down")]
    LinkDown { side: Side },
    #[error("{side:?} link has MTU {have} instead of {want}")]
    Mtu { side: Side, want: u32, have: u32 },
    #[error("{side:?} link has MAC {} instead of {want}", have.map_or_else(|| "none".to_owned(), |mac| mac.to_string()))]
    Mac {
        side: Side,
        want: Mac,
        have: Option<Mac>,
    },
    #[error("the two links are not ends of one pair")]
    NotPaired,
    #[error("host link is in group {have:#x} instead of {want:#x}")]
    Group { want: u32, have: u32 },
    #[error("host link does not say whose it is")]
    Owner,
    #[error("host link takes part in ARP")]
    Arp,
    #[error("host link does not check sources (rp_filter {have})")]
    RpFilter { have: i32 },
    #[error("host link does not forward")]
    Forwarding,
    #[error("host link accepts redirects")]
    Redirects,
    #[error("host link does not route packets from 127.0.0.1")]
    RouteLocalnet,
    #[error("host port {port} does not lead to the pod")]
    HostPortMissing { port: HostPort },
    #[error("host link has IPv6 disabled")]
    Ipv6Off,
    #[error("host link is not an IPv6 router and therefore accepts advertisements and redirects")]
    Ipv6Host,
    #[error("host link assigns its own IPv6 addresses")]
    OwnIpv6,
    #[error("pod link has no address {address}")]
    AddressMissing { address: IpAddr },
    #[error("pod has no route to its gateway")]
    GatewayRouteMissing,
    #[error("pod has no default route")]
    DefaultRouteMissing,
    #[error("pod does not send packets from {address} over its link")]
    SourceRoutingMissing { address: IpAddr },
    #[error("host has no route to {address}")]
    HostRouteMissing { address: IpAddr },
    #[error("host route to {address} has no source address {want}")]
    HostRouteSource { address: IpAddr, want: IpAddr },
    #[error("pod does not reach the other family from {address}")]
    EgressMissing { address: IpAddr },
    #[error("{side:?} link does not hold the pod to {rate} bytes per second")]
    Shaping { side: Side, rate: u64 },
    #[error("{side:?} has no permanent neighbour {address}")]
    NeighbourMissing { side: Side, address: IpAddr },
}

/// Unknown properties are not compared.
pub(super) fn compare_link(
    side: Side,
    end: &Link,
    mtu: Option<u32>,
    mac: Option<Mac>,
    drift: &mut Vec<Drift>,
) {
    if !end.up {
        drift.push(Drift::LinkDown { side });
    }
    if let Some(want) = mtu.filter(|mtu| *mtu != end.mtu) {
        drift.push(Drift::Mtu {
            side,
            want,
            have: end.mtu,
        });
    }
    if let Some(want) = mac.filter(|mac| end.mac != Some(*mac)) {
        drift.push(Drift::Mac {
            side,
            want,
            have: end.mac,
        });
    }
}

pub(super) fn ipv6_drift(have: &Inet6Conf) -> impl Iterator<Item = Drift> + use<> {
    let wrong = [
        (have.disabled, Drift::Ipv6Off),
        (!have.forwarding, Drift::Ipv6Host),
        (!have.no_own_addresses, Drift::OwnIpv6),
    ];
    wrong
        .into_iter()
        .filter_map(|(is, drift)| is.then_some(drift))
}

/// An equivalent route is enough, whoever created it: a service mesh may have replaced ours.
pub(super) fn has_route(routes: &[Route], want: &Route) -> bool {
    routes.iter().any(|r| is_equivalent(r, want))
}

/// The same, with the wanted source address, if there is one.
pub(super) fn has_sourced_route(routes: &[Route], want: &Route) -> bool {
    let sourced = |r: &Route| want.source.is_none() || r.source == want.source;
    routes.iter().any(|r| is_equivalent(r, want) && sourced(r))
}

fn is_equivalent(r: &Route, want: &Route) -> bool {
    (r.dst, r.gateway, r.oif, r.kind) == (want.dst, want.gateway, want.oif, want.kind)
}
