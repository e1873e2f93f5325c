//! Parts of rules that several chains use.

use super::expr::{Expr, Key};
use crate::constants::GROUP_INDEX_MASK;

/// The route type of a local address.
pub(super) const RTN_LOCAL: u32 = 2;

/// Sets these `bits` of the packet's mark to `value`.
pub(super) const fn mark(bits: u32, value: u32) -> [Expr<'static>; 3] {
    [
        Expr::Load(Key::Mark),
        // The mask clears them, so that the exclusive or sets them.
        Expr::Bitwise {
            mask: !bits,
            xor: value,
        },
        Expr::StoreMark,
    ]
}

/// The group of the packet's input link, without the ENI's index;
/// [`GROUP_BASE`](crate::constants::GROUP_BASE) for a pod's link.
pub(super) const POD_GROUP: [Expr<'_>; 2] = [
    Expr::Load(Key::InputGroup),
    Expr::Bitwise {
        mask: !GROUP_INDEX_MASK,
        xor: 0,
    },
];
