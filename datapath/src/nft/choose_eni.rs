//! Chain `choose_eni`: every packet of a pod gets the mark of the ENI that it leaves by.
//!
//! The other bits of a mark are other programs', and packets from elsewhere are not touched.

use super::batch::{Batch, Chain, Hook};
use super::egress::{self, Egress};
use super::expr::{Expr, Key, Verdict};
use super::parts::{POD_GROUP, mark};
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
/// meta mark set meta mark & 0xffffff00 | 0x7f
/// iifgroup != 0x6b00 jump mark_eni
/// ...what leaves by the primary ENI...
/// ```
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
    for rule in [&not_a_pods[..], &by_primary, &by_secondary] {
        batch.add_rule(CHOOSE_ENI, rule);
    }
    egress::add_clauses(batch, CHOOSE_ENI, egress);
}

/// Turns the primary ENI's mark into that of the packet's ENI: a mark counts down from the largest number, so each bit of the
/// index is cleared, `iifgroup & 1 == 1 meta mark set meta mark & 0xfffffffe` and so on. Most instances have few ENIs, so the
/// chain ends early if no higher bit is set: `iifgroup & 0xfffffffc == 0x6b00 return` after two bits.
///
/// This is done bit by bit, because kernels before 6.13 cannot combine two registers, and because `nft` cannot read a rule
/// that stores a group as a mark: a saved ruleset could not be loaded again. A map from group to mark could do it, but a map
/// that is being replaced is empty for a moment: of a million packets, a thousand passed without a mark.
fn add_mark_eni(batch: &mut Batch, marks: Marks) {
    batch.add_chain(&Chain {
        name: MARK_ENI,
        hook: None,
    });
    let group = |mask: u32, value: u32| {
        [
            Expr::Load(Key::InputGroup),
            Expr::Bitwise { mask, xor: 0 },
            Expr::Equals(value),
        ]
    };
    for bit in 0..marks.eni_mask().count_ones() {
        if bit > 0 && bit % 2 == 0 {
            let no_higher_bit = group(!((1 << bit) - 1), GROUP_BASE);
            let end = [Expr::Verdict(Verdict::Return)];
            batch.add_rule(MARK_ENI, &[&no_higher_bit[..], &end].concat());
        }
        let in_group = 1 << bit;
        let cleared = mark(in_group << marks.shift(), 0);
        let is_set = group(in_group, in_group);
        batch.add_rule(MARK_ENI, &[&is_set[..], &cleared].concat());
    }
}
