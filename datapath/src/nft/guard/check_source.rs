//! Chain `check_source`: a pod sends from its own address or not at all.

use super::super::batch::{Batch, Chain, Hook};
use super::super::expr::{Expr, Verdict};
use super::super::parts::POD_GROUP;
use crate::constants::GROUP_BASE;

const CHECK_SOURCE: &str = "check_source";

/// Before connection tracking (−200), so that a forged packet creates no entry.
const CHECK_SOURCE_HOOK: Hook = Hook {
    kind: "filter",
    number: Hook::PREROUTING,
    priority: -300,
};

/// `iifgroup & 0xffffff80 == 0x6b00 fib saddr . iif oif missing drop`: the packet is from a pod link, and the route
/// back to its source does not use this link.
pub(in crate::nft) fn add_check_source(batch: &mut Batch) {
    batch.add_chain(&Chain {
        name: CHECK_SOURCE,
        hook: Some(CHECK_SOURCE_HOOK),
    });
    let [load, within] = POD_GROUP;
    batch.add_rule(
        CHECK_SOURCE,
        &[
            load,
            within,
            Expr::Equals(GROUP_BASE),
            Expr::FibSourceIsRoutedBack,
            Expr::Equals(0),
            Expr::Verdict(Verdict::Drop),
        ],
    );
}
