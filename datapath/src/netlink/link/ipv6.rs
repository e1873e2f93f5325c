//! The IPv6 settings of a link. The kernel reports all of them over rtnetlink, but accepts only one of them: whether
//! the link gets addresses from the kernel. The others can only be written in `/proc/sys`.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};

use super::{named, of};
use crate::netlink::Request;

/// `net.ipv6.conf.<link>.*`, as far as they are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inet6Conf {
    /// `disable_ipv6`: the link has no IPv6 at all.
    pub disabled: bool,
    /// `forwarding`. The setting of all links decides whether the node forwards. This one makes the node a router on
    /// the link: it ignores redirects, and accepts advertisements only if `accept_ra` is 2.
    pub forwarding: bool,
    /// `accept_ra`.
    pub accept_ra: i32,
    /// The kernel assigns no addresses of its own to the link (`addr_gen_mode` none).
    pub no_own_addresses: bool,
}

impl Inet6Conf {
    pub(super) fn of(families: &[AfSpecUnspec]) -> Option<Self> {
        const NONE: i32 = 1;
        let ipv6 = families.iter().filter_map(|family| match family {
            AfSpecUnspec::Inet6(ipv6) => Some(ipv6),
            _ => None,
        });
        ipv6.flatten().find_map(|setting| match setting {
            AfSpecInet6::DevConf(conf) => Some(Self {
                disabled: conf.disable_ipv6 != 0,
                forwarding: conf.forwarding != 0,
                accept_ra: conf.accept_ra,
                no_own_addresses: conf.addr_gen_mode == NONE,
            }),
            _ => None,
        })
    }
}

/// Link `index` gets no link-local address from the kernel (`addr_gen_mode` none). It then sends no router
/// solicitations, does no duplicate address detection and has no `fe80::/64` route. Send this before the link has a
/// carrier, which is when the kernel creates the address.
#[must_use]
pub fn set_no_own_ipv6(index: u32) -> Request {
    own_ipv6(of(index), In6AddrGenMode::None)
}

/// Link `index` gets a link-local address again the next time that it has a carrier, as every link by default.
#[must_use]
pub fn set_own_ipv6(index: u32) -> Request {
    own_ipv6(of(index), In6AddrGenMode::Eui64)
}

/// The same for the link with this name.
#[must_use]
pub fn set_no_own_ipv6_by_name(name: &str) -> Request {
    own_ipv6(named(name), In6AddrGenMode::None)
}

fn own_ipv6(mut message: LinkMessage, mode: In6AddrGenMode) -> Request {
    let mode = AfSpecInet6::AddrGenMode(mode);
    let settings = vec![AfSpecUnspec::Inet6(vec![mode])];
    message
        .attributes
        .push(LinkAttribute::AfSpecUnspec(settings));
    let op = "link set inet6 address generation";
    Request::ack(op, RouteNetlinkMessage::SetLink(message), 0)
}
