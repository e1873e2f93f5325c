//! What of a link's IPv6 can be set over rtnetlink: whether the kernel gives it addresses of its own.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};

use super::{named, of};
use crate::netlink::Request;

/// Link `index` gets no link-local address from the kernel (`addr_gen_mode` none), and so asks for no router, looks for
/// no duplicate and has no `fe80::/64` route. To be sent before its carrier comes: then the kernel makes them.
#[must_use]
pub fn set_no_own_ipv6(index: u32) -> Request {
    no_own_ipv6(of(index))
}

/// The same for the link of this name.
#[must_use]
pub fn set_no_own_ipv6_by_name(name: &str) -> Request {
    no_own_ipv6(named(name))
}

fn no_own_ipv6(mut message: LinkMessage) -> Request {
    let mode = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    let settings = vec![AfSpecUnspec::Inet6(vec![mode])];
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(settings));
    let op = "link set inet6 address generation";
    Request::ack(op, RouteNetlinkMessage::SetLink(message), 0)
}
