//! The link of an ENI: up, with its MTU and group, a loose source check, and forwarding.

use super::error::{During, HostError};
use crate::constants::GROUP_ENI;
use crate::netlink::link::{self, Change, InetConf, Link};
use crate::netlink::{Report, Request, Socket};

/// Loose source check. An ENI must accept replies that arrive on it, although the main table would route the answer
/// through another ENI.
const LOOSE: u32 = 2;

/// Whether the link is as it should be, as far as a notification tells.
pub(super) fn is_right(link: &Link, mtu: u32) -> bool {
    let loose = link.rp_filter.is_none_or(|have| have == 2);
    let made = link.up && link.mtu == mtu && link.group == GROUP_ENI;
    made && loose && link.forwarding != Some(0)
}

/// The requests that make the link as it should be.
pub(super) fn diff(link: &Link, mtu: u32) -> Vec<Request> {
    let mut requests = Vec::new();
    if !link.up || link.mtu != mtu || link.group != GROUP_ENI {
        let change = Change {
            up: (!link.up).then_some(true),
            mtu: (link.mtu != mtu).then_some(mtu),
            group: (link.group != GROUP_ENI).then_some(GROUP_ENI),
            ..Change::default()
        };
        requests.push(link::set(link.index, &change));
    }
    // Packets from an ENI are forwarded to pods. The link's own setting decides, whatever `ip_forward` says.
    if link.rp_filter != Some(2) || link.forwarding == Some(0) {
        requests.push(link::set_inet_conf(
            link.index,
            &[(InetConf::RpFilter, LOOSE), (InetConf::Forwarding, 1)],
        ));
    }
    requests
}

/// Makes the link as it should be. Sends nothing if it is.
pub(super) fn ensure(socket: &mut Socket, link: &Link, mtu: u32) -> Result<(), HostError> {
    socket
        .batch(&diff(link, mtu))
        .and_then(Report::ok)
        .during("set up the ENI's link")
}
