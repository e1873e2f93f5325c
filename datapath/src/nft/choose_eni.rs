//! Chain `choose_eni`: every packet of a pod gets the mark of the ENI that it leaves by.
//!
//! The other bits of a mark are other programs', and packets from elsewhere are not touched.

use super::batch::{Batch, Chain, Hook};
use super::egress::{self, Egress};
use super::expr::{Expr, FibType, Key, Verdict};
use super::parts::{POD_GROUP, RTN_LOCAL, mark};
use crate::constants::GROUP_BASE;
use crate::marks::Marks;
use nettypes::EniIndex;

const CHOOSE_ENI: &str = "choose_eni";
const MARK_ENI: &str = "mark_eni";

/// After DNAT (−100), where the destination is the real one. Always before the routing decision.
const CHOOSE_ENI_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -90,
};

/// ```text
/// iifgroup & 0xffffff80 != 0x6b00 return
/// meta mark set meta mark & 0xffffff00 | 1
/// iifgroup != 0x6b00 jump mark_eni
/// fib daddr type local return
/// ...what leaves by the primary ENI...
/// ```
///
/// A packet to a local address is not delivered by its mark, but it may be forwarded with it: a proxy may bind addresses of
/// services to a device of the node, and route the rewritten packets again. The destination is not the real one yet,
/// so it does not show whether the packet leaves the VPC.
///
/// Our bits are cleared first. If another program, or a connection mark that it restores, had set any of them, the packet
/// would leave through an ENI that does not own its address, and the VPC would drop it silently.
pub(super) fn add_choose_eni(batch: &mut Batch, egress: &Egress) {
    let marks = egress.marks;
    add_mark_eni(batch, marks);
    batch.add_chain(&Chain {
        name: CHOOSE_ENI,
        hook: Some(CHOOSE_ENI_HOOK),
    });
    let [load, within] = POD_GROUP;
    let not_a_pods = [
        load,
        within,
        Expr::Differs(GROUP_BASE),
        Expr::Verdict(Verdict::Return),
    ];
    let primary = marks.of(EniIndex::PRIMARY).unwrap_or_default();
    let by_primary = mark(marks.all(), primary);
    let by_secondary = [
        load,
        Expr::Differs(GROUP_BASE),
        Expr::Verdict(Verdict::Jump(MARK_ENI)),
    ];
    let local = [
        Expr::FibType(FibType::Destination),
        Expr::Equals(RTN_LOCAL),
        Expr::Verdict(Verdict::Return),
    ];
    for rule in [&not_a_pods[..], &by_primary, &by_secondary, &local] {
        batch.add_rule(CHOOSE_ENI, rule);
    }
    egress::add_clauses(batch, CHOOSE_ENI, egress);
}

/// Puts the ENI's index plus one into the mark. First the index is copied from the link's group, `iifgroup & 1 == 1 meta
/// mark set meta mark | 1` and so on, then it is counted up: `meta mark & 1 == 0 meta mark set meta mark ^ 1 return`, `meta
/// mark & 3 == 1 meta mark set meta mark ^ 3 return` and so on, which flips the lowest 0 and the ones below it.
///
/// This is done bit by bit, because kernels before 6.13 cannot combine two registers, and none can add. A map from group
/// to mark could do it, but a map that is being replaced is empty for a moment: of a million packets, a thousand passed
/// without a mark.
fn add_mark_eni(batch: &mut Batch, marks: Marks) {
    batch.add_chain(&Chain {
        name: MARK_ENI,
        hook: None,
    });
    batch.add_rule(MARK_ENI, &mark(marks.number(), 0));
    let bits = marks.number().count_ones();
    for bit in 0..bits {
        let in_group = 1 << bit;
        let in_mark = in_group << marks.shift();
        let is_set = [
            Expr::Load(Key::InputGroup),
            Expr::Bitwise {
                mask: in_group,
                xor: 0,
            },
            Expr::Equals(in_group),
        ];
        batch.add_rule(MARK_ENI, &[&is_set[..], &mark(in_mark, in_mark)].concat());
    }
    for bit in 0..bits {
        let ones = ((1 << bit) - 1) << marks.shift();
        let flipped = ((2 << bit) - 1) << marks.shift();
        batch.add_rule(
            MARK_ENI,
            &[
                Expr::Load(Key::Mark),
                Expr::Bitwise {
                    mask: flipped,
                    xor: 0,
                },
                Expr::Equals(ones),
                Expr::Load(Key::Mark),
                Expr::Bitwise {
                    mask: u32::MAX,
                    xor: flipped,
                },
                Expr::StoreMark,
                Expr::Verdict(Verdict::Return),
            ],
        );
    }
}
