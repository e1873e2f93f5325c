//! A link's IPv6: the settings, all of which the kernel shows over rtnetlink, and the one that it lets be set that way:
//! whether it gives the link addresses of its own. The others can be written in `/proc/sys` only.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkMessage,
};

use super::{named, of};
use crate::netlink::Request;

/// `net.ipv6.conf.<link>.*`, as far as somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inet6Conf {
    /// `disable_ipv6`: the link has no IPv6 at all.
    pub disabled: bool,
    /// `forwarding`. Whether the node forwards is decided by the setting of all links; this one makes the node a router on
    /// the link, which heeds no redirects, and advertisements only where `accept_ra` is 2.
    pub forwarding: bool,
    /// `accept_ra`.
    pub accept_ra: i32,
    /// The kernel gives the link no addresses of its own (`addr_gen_mode` none).
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
