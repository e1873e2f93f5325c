//! What pods may not do, as far as only a packet filter can say: reach the metadata service where the operator forbids
//! it, and speak IPv6 to a node whose pods have none.

use super::batch::{Batch, Chain, Hook};
use super::expr::{Expr, Verdict};
use super::{POD_GROUP, TABLE};
use crate::constants::{GROUP_BASE, INSTANCE_METADATA, INSTANCE_METADATA_V6};
use crate::netlink::Family;

const BLOCK_METADATA: &str = "block_metadata";
const NO_IPV6: &str = "no_ipv6";

/// Where forwarded packets pass: DNAT is done, so that no service leads there by another address, and what is answered on
/// the node itself, as by an agent that stands in for the metadata service, does not come this way.
const FORWARD_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::FORWARD,
    priority: 0,
};
/// Before anything else of IPv6 sees the packet.
const RAW_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -300,
};

/// `ip daddr 169.254.169.254 iifgroup & 0xffffff80 == 0x6b00 drop`, in IPv6 with `ip6 daddr fd00:ec2::254`. The destination
/// is in every fragment. The chain is there only where it is wanted: nobody else's packets pay for it.
///
/// One of the two is enough. A pod of the other family has no address to ask from, and what it makes up for itself is
/// dropped by the check of sources.
pub(super) fn add_block_metadata(batch: &mut Batch, pods: Family) {
    batch.add_chain(&Chain {
        name: BLOCK_METADATA,
        hook: Some(FORWARD_HOOK),
    });
    let [destination, is_metadata] = match pods {
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

/// Table `ip6 hawser` of a node whose pods have IPv4 only: `iifgroup & 0xffffff80 == 0x6b00 drop`.
///
/// Such a pod has a link-local address all the same, and with it could advertise itself as a router, redirect the node, or
/// fill its table of neighbours. The settings that forbid the first two are only in `/proc/sys`, which a container without
/// privileges may not write; and one rule serves all pods.
pub(super) fn replace_ipv6(batch: &mut Batch) {
    batch.turn_to(Family::V6, TABLE);
    batch.add_table();
    batch.del_table();
    batch.add_table();
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
