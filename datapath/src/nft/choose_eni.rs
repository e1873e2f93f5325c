//! Chain `choose_eni`: every packet of a pod gets the mark of the ENI that it leaves by.
//!
//! The other bits of a mark are other programs', and packets from elsewhere are not touched.

use super::batch::{Batch, Chain, Hook};
use super::egress::{self, Egress};
use super::expr::{Expr, Key, Verdict};
use super::parts::{POD_GROUP, mark};
use crate::constants::GROUP_BASE;
use crate::marks::Marks;

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
/// meta mark != 0 jump mark_eni
/// meta mark 0 meta mark set iifgroup & 0x7f ^ 0x7f
/// ...what leaves by the primary ENI...
/// ```
///
/// Nearly every packet has no mark yet, and gets its ENI's in one step: the index is in the link's group, and a mark counts
/// down from the largest number. A packet with a mark of another program goes through chain `mark_eni`, and is marked
/// then, so that the next rule does not apply to it.
///
/// In such a mark, our bits are cleared first. If another program, or a connection mark that it restores, had set any of
/// them, the packet would leave through an ENI that does not own its address, and the VPC would drop it silently.
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
    let marked = [
        Expr::Load(Key::Mark),
        Expr::Differs(0),
        Expr::Verdict(Verdict::Jump(MARK_ENI)),
    ];
    let unmarked = [
        Expr::Load(Key::Mark),
        Expr::Equals(0),
        Expr::Load(Key::InputGroup),
        Expr::Bitwise {
            mask: marks.largest(),
            xor: marks.largest(),
        },
        Expr::StoreMark,
    ];
    batch.add_rule(CHOOSE_ENI, &not_a_pods);
    if marks.shift() == 0 {
        batch.add_rule(CHOOSE_ENI, &marked);
        batch.add_rule(CHOOSE_ENI, &unmarked);
    } else {
        // The index would have to be shifted, too.
        batch.add_rule(CHOOSE_ENI, &[Expr::Verdict(Verdict::Jump(MARK_ENI))]);
    }
    egress::add_clauses(batch, CHOOSE_ENI, egress);
}

/// Puts the ENI into a mark that has bits of other programs: `meta mark set meta mark & 0xffffff00 | 0x7f`, then `iifgroup &
/// 1 == 1 meta mark set meta mark & 0xfffffffe` for each bit of the index.
///
/// This is done bit by bit, because kernels before 6.13 cannot combine two registers. A map from group to mark could do
/// it, but a map that is being replaced is empty for a moment: of a million packets, a thousand passed without a mark.
fn add_mark_eni(batch: &mut Batch, marks: Marks) {
    batch.add_chain(&Chain {
        name: MARK_ENI,
        hook: None,
    });
    batch.add_rule(MARK_ENI, &mark(marks.all(), marks.eni_mask()));
    for bit in 0..marks.eni_mask().count_ones() {
        let in_group = 1 << bit;
        let is_set = [
            Expr::Load(Key::InputGroup),
            Expr::Bitwise {
                mask: in_group,
                xor: 0,
            },
            Expr::Equals(in_group),
        ];
        let cleared = mark(in_group << marks.shift(), 0);
        batch.add_rule(MARK_ENI, &[&is_set[..], &cleared].concat());
    }
}
