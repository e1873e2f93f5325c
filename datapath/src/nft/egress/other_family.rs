//! The chains for pods that reach destinations of the other address family: one rule translates all of them, and nobody
//! reaches a pod at its address of that family.
//!
//! In table `ip hawser` on a node of IPv6 pods, and in `ip6 hawser` on a node of IPv4 pods. Main routes these packets, as the
//! node's own, and each connection gets an address of the link by which it leaves. The number of rules is constant.

use super::super::batch::{Batch, Chain, Hook};
use super::super::expr::{CtKey, Expr, Verdict};
use super::SourcePorts;
use crate::constants::{EGRESS_V4, EGRESS_V6};
use crate::netlink::Family;

const MASQUERADE: &str = "other_family";
const NO_INBOUND: [(&str, u32); 2] = [
    ("no_inbound", Hook::FORWARD),
    ("no_inbound_from_node", Hook::OUTPUT),
];
/// `srcnat`, the usual priority.
const MASQUERADE_HOOK: Hook = Hook {
    kind: "nat",
    number: Hook::POSTROUTING,
    priority: 100,
};
/// `IP_CT_ESTABLISHED` and `IP_CT_RELATED` as bits of `ct state`: answers, and ICMP errors about them.
const ANSWERS: u32 = 2 | 4;

/// ```text
/// ip saddr 169.254.172.0/22 masquerade fully-random
/// ip daddr 169.254.172.0/22 ct state & (established | related) == 0 drop
/// ```
/// the second one for forwarded packets and for the node's own.
pub(in crate::nft) fn add_other_family(batch: &mut Batch, other: Family, ports: SourcePorts) {
    batch.add_chain(&Chain {
        name: MASQUERADE,
        hook: Some(MASQUERADE_HOOK),
    });
    let flags = ports.flags();
    let [source, destination] = match other {
        Family::V4 => [Expr::LoadSource, Expr::LoadDestination],
        Family::V6 => [Expr::LoadSourceV6, Expr::LoadDestinationV6],
    };
    let [within, is_in] = match other {
        Family::V4 => [
            Expr::Network(EGRESS_V4.prefix_len()),
            Expr::IsAddress(EGRESS_V4.network()),
        ],
        Family::V6 => [
            Expr::NetworkV6(EGRESS_V6.prefix_len()),
            Expr::IsAddressV6(EGRESS_V6.network()),
        ],
    };
    let translate = [source, within, is_in, Expr::Masquerade { flags }];
    batch.add_rule(MASQUERADE, &translate);
    for (name, number) in NO_INBOUND {
        let hook = Hook {
            kind: "filter",
            number,
            priority: 0,
        };
        batch.add_chain(&Chain {
            name,
            hook: Some(hook),
        });
        let rule = [
            destination,
            within,
            is_in,
            Expr::LoadCt(CtKey::State),
            Expr::Bitwise {
                mask: ANSWERS,
                xor: 0,
            },
            Expr::Equals(0),
            Expr::Verdict(Verdict::Drop),
        ];
        batch.add_rule(name, &rule);
    }
}
