//! Restrictions for pods that only a packet filter can implement: blocking the metadata service, and dropping IPv6 on a
//! node with IPv4 pods. [`check_source`] has the check of source addresses.
//!
//! May use the expressions and batches of `nft`. Must not know why a restriction is wanted.

pub(super) mod check_source;

use super::batch::{Batch, Chain, Hook};
use super::expr::{Expr, Verdict};
use super::parts::POD_GROUP;
use crate::constants::{GROUP_BASE, INSTANCE_METADATA, INSTANCE_METADATA_V6};
use crate::netlink::Family;

const BLOCK_METADATA: &str = "block_metadata";
const NO_IPV6: &str = "no_ipv6";

/// The hook for forwarded packets. DNAT is done, so no service can lead there through another address. Packets that the
/// node itself answers, for example through an agent for the metadata service, do not pass here.
const FORWARD_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::FORWARD,
    priority: 0,
};
/// Before all other IPv6 processing.
const RAW_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -300,
};

/// `ip daddr 169.254.169.254 iifgroup & 0xffffff80 == 0x6b00 drop`, for IPv6 with `ip6 daddr fd00:ec2::254`. Every
/// fragment contains the destination. The chain exists only if it is enabled, so packets of other nodes have no extra
/// cost.
///
/// Where pods do not reach the other family, one of the two is enough: a pod has no address for such requests, and the source
/// check drops packets with a made-up address.
pub(super) fn add_block_metadata(batch: &mut Batch, family: Family) {
    batch.add_chain(&Chain {
        name: BLOCK_METADATA,
        hook: Some(FORWARD_HOOK),
    });
    let [destination, is_metadata] = match family {
        Family::V4 => [Expr::LoadDestination, Expr::IsAddress(INSTANCE_METADATA)],
        Family::V6 => [
            Expr::LoadDestinationV6,
            Expr::IsAddressV6(INSTANCE_METADATA_V6),
        ],
    };
    let [load, within] = POD_GROUP;
    let rule = [
        destination,
        is_metadata,
        load,
        within,
        Expr::Equals(GROUP_BASE),
        Expr::Verdict(Verdict::Drop),
    ];
    batch.add_rule(BLOCK_METADATA, &rule);
}

/// Table `ip6 hawser` of a node with IPv4 pods only: `iifgroup & 0xffffff80 == 0x6b00 drop`.
///
/// Such a pod still has a link-local address. With it, it could advertise itself as a router, redirect the node, or
/// fill its neighbour table. The settings against the first two are only in `/proc/sys`, which a container without
/// privileges cannot write. One rule serves all pods.
pub(super) fn add_no_ipv6(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: NO_IPV6,
        hook: Some(RAW_HOOK),
    });
    let [load, within] = POD_GROUP;
    let rule = [
        load,
        within,
        Expr::Equals(GROUP_BASE),
        Expr::Verdict(Verdict::Drop),
    ];
    batch.add_rule(NO_IPV6, &rule);
}

#[cfg(test)]
mod tests;
