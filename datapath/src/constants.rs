//! The numbers that Hawser writes into the kernel: marks, groups, tables, priorities, the gateway.
//!
//! Owns the values and the reason for each. Must not contain logic except arithmetic on them. Where the AWS VPC CNI has
//! the same kind of value, Hawser uses the same number, so that a migrated node looks familiar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use nettypes::Family;

/// The next hop of every pod. It is link-local, so it can never be a VPC address. No interface owns it; pods reach it
/// through a permanent neighbour entry.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// The same for IPv6, with the AWS VPC CNI's value.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The next hop of a pod with this family.
#[must_use]
pub const fn gateway(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GATEWAY),
        Family::V6 => IpAddr::V6(GATEWAY_V6),
    }
}

/// The addresses by which pods with IPv6 addresses reach IPv4 destinations. They are link-local and known only to the node,
/// which translates them. The AWS VPC CNI's value, so that rules of operators for it keep their meaning.
pub const EGRESS_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 172, 0), 22);

/// The same for pods with IPv4 addresses and IPv6 destinations.
pub const EGRESS_V6: Ipv6Net =
    Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0xac, 0), 118);

/// The network of the egress addresses of this family.
#[must_use]
pub const fn egress_net(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(EGRESS_V4),
        Family::V6 => IpNet::V6(EGRESS_V6),
    }
}

/// Whether it is an address by which a pod reaches destinations of the other family.
#[must_use]
pub fn is_egress(address: IpAddr) -> bool {
    egress_net(Family::of(address)).contains(&address)
}

/// The address of the instance metadata service.
pub const INSTANCE_METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// The same over IPv6, for instances with EC2's `HttpProtocolIpv6` enabled.
pub const INSTANCE_METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// `rtm_protocol` and `FRA_PROTOCOL` of all our routes and rules, so that a dump distinguishes them from others. 107 is
/// unassigned in the kernel's header and in iproute2's `rt_protos`.
pub const PROTOCOL: u8 = 107;

/// Link group of a pod's host end: this base plus the index of the pod's ENI. Nothing else on a node uses groups near
/// 0x6b00 (the AWS VPC CNI uses none, administrators start at 1).
pub const GROUP_BASE: u32 = 0x6b00;

/// Link group of pod links that are being deleted together: one request deletes a whole group. It is outside the range
/// of the indices, so such a link is no longer treated as a pod's link.
pub const GROUP_DYING: u32 = GROUP_BASE + 0xff;

/// Link group of managed ENIs, so that a rule can tell routes over them from all others ([`RULE_NODE_LOCAL`]). It is
/// outside the range of the indices.
pub const GROUP_ENI: u32 = GROUP_BASE + 0xfe;

/// The bits of a link group that hold the index of an ENI.
pub const GROUP_INDEX_MASK: u32 = 0x7f;

/// The table of the local pods' /32 and /128 routes, one per family. The AWS VPC CNI's ENI tables are `device + 1` and
/// `10000 + 100·card + device`, branch ENIs use 101–220, the kernel 253–255. The group base differs from all of them
/// for any card below 173, and is recognisable in `ip rule`.
pub const PODS_TABLE: u32 = GROUP_BASE;

/// Every packet → [`PODS_TABLE`]: local pods take precedence over every ENI table. The cost is one /32 lookup for any
/// number of pods.
pub const RULE_PODS: u32 = 512;
/// Packets from the node itself continue at [`RULE_HOST_RESUME`]: marks that other programs set on them are not ours.
pub const RULE_HOST_SKIP: u32 = 1020;
/// Packets to destinations outside the VPC → main, as far as main has a route for them that is neither over an ENI nor
/// shorter than [`NODE_LOCAL_PREFIX`]: networks that exist only on the node, such as a container bridge's.
pub const RULE_NODE_LOCAL: u32 = 1022;
/// Packets that must leave through the primary ENI → its table.
pub const RULE_PRIMARY: u32 = 1024;
/// Mark → ENI table, one rule per ENI. After the primary's rule, because that bit overrides an ENI's number.
pub const RULE_ENI: u32 = 1536;
/// Does nothing. The target of [`RULE_HOST_SKIP`].
pub const RULE_HOST_RESUME: u32 = 1540;
/// In a pod: from the address of a secondary attachment → its table ([`ATTACHMENT_TABLES`]). Just before main, so that the
/// rules of others in the pod (service meshes, the `sbr` plugin) come first.
pub const RULE_ATTACHMENT: u32 = 32765;
/// In a pod: the table of a secondary attachment is this base plus the index of its interface. The AWS VPC CNI uses the
/// tables 1 and following there, the `sbr` plugin 100 and following.
pub const ATTACHMENT_TABLES: u32 = GROUP_BASE << 8;
/// Routes of main that are shorter than this are never node-local: some VPN clients split the default route in two or four.
pub const NODE_LOCAL_PREFIX: u32 = 8;
/// From an ENI's own address → its table: the host's traffic through this ENI. Just before main (32766).
pub const RULE_ENI_ADDRESS: u32 = 32765;

/// Route table of the ENI at `device` on network card `card`. Table 1 is the primary ENI's (card 0, device 0); the AWS VPC
/// CNI leaves that number unused and routes the primary's pods by main.
#[must_use]
pub const fn eni_table(card: u32, device: u32) -> u32 {
    if card == 0 {
        device + 1
    } else {
        10_000 + 100 * card + device
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_upstreams() {
        assert_eq!(eni_table(0, 0), 1);
        assert_eq!(eni_table(0, 1), 2);
        assert_eq!(eni_table(0, 14), 15);
        assert_eq!(eni_table(1, 1), 10_101);
        assert_eq!(eni_table(31, 15), 13_115);
    }

    #[test]
    fn no_table_of_a_real_instance_is_the_pods_table() {
        let clash = (0..64)
            .flat_map(|card| (0..100).map(move |device| eni_table(card, device)))
            .find(|t| *t == PODS_TABLE);
        assert_eq!(clash, None);
        assert!(!(101..=220).contains(&PODS_TABLE) && !(253..=255).contains(&PODS_TABLE));
    }
}
