//! Whether the node has what pods need to reach destinations of the other address family: an address that their connections
//! are translated to, and a default route. The operator gives it both.

use std::net::IpAddr;

use datapath::netlink::{
    Error, Family, Socket,
    addr::Address,
    route::{MAIN, Route},
};
use proto::error_chain::chain;

/// What the node lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    Address,
    Route,
}

impl Lack {
    #[must_use]
    pub const fn text(self, other: Family) -> &'static str {
        match (self, other) {
            (Self::Address, Family::V4) => "the node has no IPv4 address",
            (Self::Address, Family::V6) => "the node has no global IPv6 address",
            (Self::Route, Family::V4) => "the node has no default route of IPv4",
            (Self::Route, Family::V6) => "the node has no default route of IPv6",
        }
    }
}

/// What helps.
#[must_use]
pub const fn remedy(other: Family) -> &'static str {
    match other {
        Family::V4 => {
            "give the node's subnet a route to IPv4 destinations, or set ENABLE_V4_EGRESS=false"
        }
        Family::V6 => {
            "assign an IPv6 address to the node's primary ENI and give its subnet a route to IPv6 destinations, or set \
             ENABLE_V6_EGRESS=false"
        }
    }
}

/// Looks at the main table and at the addresses of all links.
///
/// # Errors
/// If the kernel cannot be queried.
pub fn look(socket: &mut Socket, other: Family) -> Result<Option<Lack>, Error> {
    let addresses = socket.addresses(other, None)?;
    let routes = socket.routes(other, Some(MAIN))?;
    Ok(judge(&addresses, &routes, other))
}

fn judge(addresses: &[Address], routes: &[Route], other: Family) -> Option<Lack> {
    let global = |address: &IpAddr| match address {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    };
    if !addresses.iter().any(|a| global(&a.address)) {
        return Some(Lack::Address);
    }
    let everything = other.everything();
    (!routes.iter().any(|route| route.dst == everything)).then_some(Lack::Route)
}

/// Logs a warning if something is missing now. Pods are served anyway: it may come later.
pub fn warn(other: Family) {
    let found = Socket::open().and_then(|mut socket| look(&mut socket, other));
    match found {
        Ok(None) => {}
        Ok(Some(lack)) => tracing::warn!(
            lacks = lack.text(other),
            remedy = remedy(other),
            "pods do not reach destinations of the other address family"
        ),
        Err(error) => tracing::warn!(
            error = chain(&error),
            "could not find out whether pods reach destinations of the other address family"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_and_a_default_route_are_needed() {
        let global = Address::host(2, "2001:db8::1".parse::<IpAddr>().unwrap());
        let local = Address::host(2, "fe80::1".parse::<IpAddr>().unwrap());
        let six = Family::V6;
        let default = Route::via(
            six.everything(),
            "fe80::2".parse::<IpAddr>().unwrap(),
            2,
            MAIN,
        );
        let other = Route::link("2001:db8::/64".parse::<ipnet::IpNet>().unwrap(), 2, MAIN);
        assert_eq!(judge(&[local, global], &[other, default], six), None);
        assert_eq!(judge(&[local], &[default], six), Some(Lack::Address));
        assert_eq!(judge(&[global], &[other], six), Some(Lack::Route));
        let own = Address::host(1, [127, 0, 0, 1]);
        assert_eq!(judge(&[own], &[], Family::V4), Some(Lack::Address));
    }
}
