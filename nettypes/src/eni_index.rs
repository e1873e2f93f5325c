//! The number of an ENI on its node.

use std::fmt;

/// The number of an ENI on its node, from which its packet mark, its link group and its route table are made. It is kept
/// for as long as the ENI is attached.
///
/// A mark has at most seven bits for it, and the mark 0 is no ENI's, so the largest index is 126.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EniIndex(u16);

impl EniIndex {
    /// The primary ENI.
    pub const PRIMARY: Self = Self(0);
    /// The largest index.
    pub const LAST: Self = Self(126);

    /// `None` if no mark can hold it.
    #[must_use]
    pub const fn new(index: u16) -> Option<Self> {
        if index <= Self::LAST.0 {
            Some(Self(index))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// All indices of secondary ENIs, in ascending order.
    pub fn secondary() -> impl Iterator<Item = Self> {
        (1..=Self::LAST.0).map(Self)
    }
}

impl fmt::Display for EniIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_seven_bits_has_room_for_an_index_and_for_none() {
        let fits = |index: u16| index + 1 < 1 << 7;
        for index in 0..200 {
            assert_eq!(EniIndex::new(index).is_some(), fits(index), "{index}");
        }
        assert_eq!(EniIndex::secondary().count(), 126);
    }
}
