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
    /// A bit of the field that is always set. Only while the marks of an earlier version are replaced; otherwise 0.
    tag: u32,
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
        tag: 0,
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
        Ok(Self {
            primary,
            eni,
            tag: 0,
        })
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

    /// The value of the field for an ENI: its index plus one, because 0 would match every packet without a mark. `None` if
    /// the field is too small.
    #[must_use]
    pub const fn of(self, index: EniIndex) -> Option<u32> {
        let value = (index.get() as u32 + 1) << self.shift();
        if value & !self.number() == 0 {
            Some(value | self.tag)
        } else {
            None
        }
    }

    /// The ENI whose mark this is, the inverse of [`Marks::of`].
    #[must_use]
    pub fn index_of(self, mark: u32) -> Option<EniIndex> {
        if mark & self.tag != self.tag {
            return None;
        }
        let number = (mark & self.number()) >> self.shift();
        EniIndex::new(u16::try_from(number.checked_sub(1)?).ok()?)
    }

    /// The same field, in which the highest bit is always set and the others hold the number. Rules for these marks stand
    /// beside those of an earlier version, which never used that bit.
    #[must_use]
    pub(crate) const fn tagged(self) -> Self {
        Self {
            tag: 1 << (u32::BITS - 1 - self.eni.leading_zeros()),
            ..self
        }
    }

    /// The bits of the field that hold the number.
    pub(crate) const fn number(self) -> u32 {
        self.eni & !self.tag
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
    fn the_number_of_an_eni_is_its_index_plus_one() {
        let marks = Marks::default();
        assert_eq!(marks.of(EniIndex::PRIMARY), Some(1));
        assert_eq!(marks.of(index(14)), Some(15));
        assert_eq!(marks.of(EniIndex::LAST), Some(0x7f));
        let moved = Marks::new(0x8000_0000, 0x0f00).unwrap();
        assert_eq!(moved.of(index(1)), Some(0x200));
        assert_eq!(moved.of(index(15)), None);
    }

    #[test]
    fn marks_and_indices_are_inverse() {
        for marks in [
            Marks::default(),
            Marks::default().tagged(),
            Marks::new(1, 0x7f_0000).unwrap(),
        ] {
            for index in (0..62).map(index) {
                let mark = marks.of(index).unwrap();
                assert_eq!(mark & !marks.eni_mask(), 0);
                assert_eq!(marks.index_of(mark | 0x8000_0080), Some(index));
            }
            assert_eq!(marks.index_of(0), None);
        }
        assert_eq!(Marks::default().tagged().index_of(5), None);
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
