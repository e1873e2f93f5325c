//! The settings of a pod's link that restrict the pod to its own address.
//!
//! Owns the IPv4 settings of a host end. What a pod can send, and why it has no effect:
//!
//! - *Another source address.* The strict reverse path filter looks up in the table of /32 routes whether the route
//!   back uses this link. If `net.ipv4.conf.all` weakens it, nftables do the same lookup (`check_source`).
//! - *ARP.* ARP is disabled on the host end, so it learns, answers and probes nothing; both ends have permanent entries
//!   for each other. A filter by address would need a rule or set element per pod, changed with each ADD. This is a
//!   flag of the request that creates the link, and costs nothing per packet.
//! - *Another MAC address.* It is not used: the link is routed, not bridged, so the frame ends here, and the packet
//!   continues with the MAC of its output link.
//! - *ICMP redirects.* They are neither accepted nor sent.
//! - *Packets to the node's 127.0.0.1.* The kernel drops them, except on the link of a pod with host ports, which must carry
//!   packets of the node from there. On it, nftables drop them (`nft::ports`).
//! - *IPv6.* On a node with IPv4 pods, nftables drop all of it (`nft::guard::add_no_ipv6`), including router
//!   advertisements, redirects and neighbour discovery. The device settings for this (`accept_ra`, `accept_redirects`)
//!   are only in `/proc/sys`, which a container without privileges cannot write. On a node with IPv6 pods, the source
//!   check drops everything that a router may send (`nft::Ruleset::pods`). If this rule is missing for a moment, the
//!   node is still a router on the link, as on all its links, and a router ignores redirects and, unless `accept_ra` is
//!   2, advertisements.

use std::net::IpAddr;

use nettypes::Asked;

use crate::netlink::link::InetConf;

/// The settings of a pod's host end. `forwarding` is included so that a pod works even if someone disabled it for new
/// links.
const GUARD: [(InetConf, u32); 4] = [
    (InetConf::RpFilter, STRICT),
    (InetConf::AcceptRedirects, 0),
    (InetConf::SendRedirects, 0),
    (InetConf::Forwarding, 1),
];

/// The settings of the host end of a pod.
pub(super) fn settings(address: IpAddr, asked: &Asked) -> Vec<(InetConf, u32)> {
    let mut settings = GUARD.to_vec();
    if routes_loopback(address, asked) {
        settings.push((InetConf::RouteLocalnet, 1));
    }
    settings
}

/// Whether packets from 127.0.0.1 are sent over the pod's link, because they were sent to a host port of it.
pub(super) fn routes_loopback(address: IpAddr, asked: &Asked) -> bool {
    address.is_ipv4() && !asked.ports.is_empty()
}

/// Strict reverse path filter.
const STRICT: u32 = 1;
