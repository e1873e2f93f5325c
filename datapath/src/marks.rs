//! The bits of packet marks that route pods' packets: one bit for the primary ENI, and a field for the number of an ENI.
//!
//! Owns which bits those are and what they say. Pure. Only these bits are ever written; the other bits of a mark belong to
//! other programs (kube-proxy uses 0x4000 and 0x8000, Calico the upper half; see the public fwmark registry).

use nettypes::EniIndex;

/// The bits in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// "Leave by the primary ENI", in marks of packets and of connections: `NodePort` replies, and packets to destinations
    /// outside the VPC.
    primary: u32,
    /// The field that holds the number of an ENI: adjacent bits.
    eni: u32,
}

/// Why bits cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MarksError {
    /// The field has a gap, or too few bits.
    #[error("the ENI field {eni:#x} must have between {MIN_BITS} and {MAX_BITS} adjacent bits")]
    Field {
        /// The field.
        eni: u32,
    },
    /// No bit is left for the primary ENI, or the same bit has two meanings.
    #[error(
        "the mark {primary:#x} must not be 0 and must not share bits with the ENI field {eni:#x}"
    )]
    Overlap {
        /// The primary's bits.
        primary: u32,
        /// The field.
        eni: u32,
    },
}

const MIN_BITS: u32 = 4;
/// A link group has room for as many.
const MAX_BITS: u32 = 7;

impl Default for Marks {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Marks {
    /// Bit 0x80 is the one that the AWS VPC CNI uses in connection marks.
    pub const DEFAULT: Self = Self {
        primary: 0x80,
        eni: 0x7f,
    };

    /// Marks with these bits.
    ///
    /// # Errors
    /// [`MarksError`].
    pub const fn new(primary: u32, eni: u32) -> Result<Self, MarksError> {
        let bits = eni.count_ones();
        let adjacent = eni.leading_zeros() + bits + eni.trailing_zeros() == u32::BITS;
        if !adjacent || bits < MIN_BITS || bits > MAX_BITS {
            return Err(MarksError::Field { eni });
        }
        if primary == 0 || primary & eni != 0 {
            return Err(MarksError::Overlap { primary, eni });
        }
        Ok(Self { primary, eni })
    }

    /// The bits that mean "leave by the primary ENI".
    #[must_use]
    pub const fn primary(self) -> u32 {
        self.primary
    }

    /// The mask of the field for the number of an ENI.
    #[must_use]
    pub const fn eni_mask(self) -> u32 {
        self.eni
    }

    /// All bits.
    #[must_use]
    pub const fn all(self) -> u32 {
        self.primary | self.eni
    }

    /// The value of the field for an ENI: its largest number minus the index. `None` if the field is too small.
    ///
    /// 0 is no ENI, because it would match every packet without a mark. Counting down takes few rules of nftables, which can
    /// clear bits, but not add.
    #[must_use]
    pub const fn of(self, index: EniIndex) -> Option<u32> {
        let index = index.get() as u32;
        if index < self.largest() {
            Some((self.largest() - index) << self.shift())
        } else {
            None
        }
    }

    /// The ENI whose mark this is, the inverse of [`Marks::of`].
    #[must_use]
    pub fn index_of(self, mark: u32) -> Option<EniIndex> {
        let number = (mark & self.eni) >> self.shift();
        if number == 0 {
            return None;
        }
        EniIndex::new(u16::try_from(self.largest() - number).ok()?)
    }

    /// The largest number of the field.
    pub(crate) const fn largest(self) -> u32 {
        self.eni >> self.shift()
    }

    /// The position of the field's lowest bit.
    pub(crate) const fn shift(self) -> u32 {
        self.eni.trailing_zeros()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(index: u16) -> EniIndex {
        EniIndex::new(index).unwrap()
    }

    #[test]
    fn marks_count_down_from_the_largest_number() {
        let marks = Marks::default();
        assert_eq!(marks.of(EniIndex::PRIMARY), Some(0x7f));
        assert_eq!(marks.of(index(14)), Some(0x71));
        assert_eq!(marks.of(EniIndex::LAST), Some(1));
        let moved = Marks::new(0x8000_0000, 0x0f00).unwrap();
        assert_eq!(moved.of(index(1)), Some(0xe00));
        assert_eq!(moved.of(index(15)), None);
    }

    #[test]
    fn marks_and_indices_are_inverse() {
        for marks in [Marks::default(), Marks::new(1, 0x7f_0000).unwrap()] {
            for index in (0..=126).map(index) {
                let mark = marks.of(index).unwrap();
                assert_eq!(mark & !marks.eni_mask(), 0);
                assert_eq!(marks.index_of(mark | 0x8000_0080), Some(index));
            }
            assert_eq!(marks.index_of(0), None);
        }
    }

    #[test]
    fn bits_that_cannot_be_used_are_refused() {
        for eni in [0, 0x7, 0xff, 0x5f, 0xf0f] {
            assert_eq!(Marks::new(0x8000, eni), Err(MarksError::Field { eni }));
        }
        for primary in [0, 0x40, 0xc0] {
            assert!(matches!(
                Marks::new(primary, 0x7f),
                Err(MarksError::Overlap { .. })
            ));
        }
        assert_eq!(Marks::new(0x80, 0x7f), Ok(Marks::default()));
    }
}
