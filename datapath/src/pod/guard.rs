//! What keeps a pod to its own address, as far as it is set on the pod's link.
//!
//! Owns the IPv4 settings of a host end. What a pod can put on the wire, and why it leads nowhere:
//!
//! - *Another's source address.* The strict reverse path filter asks the table of /32 routes whether the way back leads
//!   over this very link. Where `net.ipv4.conf.all` loosens it, nftables asks the same (`check_source`).
//! - *ARP of any kind.* The host end takes no part in ARP, so nothing is learnt, answered or probed on it; both ends know
//!   each other by permanent entries. A filter by address would be a rule or a set element per pod, changed with each ADD;
//!   this is a flag of the request that makes the link, and no packet pays for it.
//! - *Another's MAC address.* Nobody reads it: the link is routed, not bridged, so the frame ends here and the packet
//!   goes on with the MAC of the link that it leaves by.
//! - *ICMP redirects.* Neither believed nor, for what they are worth, sent.
//! - *IPv6.* On a node of IPv4 pods nftables drops all of it (`nft::Ruleset::refuse_ipv6`): router advertisements,
//!   redirects and neighbour discovery with it. The device settings that say so (`accept_ra`, `accept_redirects`) are
//!   only in `/proc/sys`, which a container without privileges may not write. Where pods have IPv6, the check of sources
//!   drops all that a router may say (`nft::Ruleset::pods`); and were that rule gone for a moment, the node is a router on
//!   the link, as on all its links, and a router heeds no redirects and, unless `accept_ra` is 2, no advertisements.

use crate::netlink::link::InetConf;

/// The settings of a pod's host end. `forwarding` is there so that a pod that is made while somebody has switched it off
/// for new links is not cut off.
pub(super) const GUARD: [(InetConf, u32); 4] = [
    (InetConf::RpFilter, STRICT),
    (InetConf::AcceptRedirects, 0),
    (InetConf::SendRedirects, 0),
    (InetConf::Forwarding, 1),
];

/// Strict reverse path filter.
const STRICT: u32 = 1;
