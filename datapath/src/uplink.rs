//! Where a pod's packets leave the node, and how a pod's link says so.
//!
//! Owns the link groups of pods. Pure.

use std::fmt;

use crate::constants::{GROUP_BASE, MAX_ENI_INDEX};

/// The number of an ENI on its node. 0 is the primary ENI. It is kept for as long as the ENI is attached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EniIndex(pub u16);

impl EniIndex {
    /// The primary ENI.
    pub const PRIMARY: Self = Self(0);

    /// Whether a link group has room for it.
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 <= MAX_ENI_INDEX
    }
}

impl fmt::Display for EniIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a pod's packets leave the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Uplink {
    /// By the ENI that owns the pod's address. Several pods share it.
    Eni(EniIndex),
}

impl Uplink {
    /// By the ENI with this index.
    #[must_use]
    pub const fn eni(index: u16) -> Self {
        Self::Eni(EniIndex(index))
    }

    /// The index of the ENI.
    #[must_use]
    pub const fn index(self) -> EniIndex {
        match self {
            Self::Eni(index) => index,
        }
    }

    /// The link group of the host ends of pods with this uplink.
    #[must_use]
    pub const fn group(self) -> u32 {
        match self {
            Self::Eni(index) => GROUP_BASE + index.0 as u32,
        }
    }

    /// The uplink behind a link group, or `None` if the group is not a pod's.
    #[must_use]
    pub fn of_group(group: u32) -> Option<Self> {
        let index = EniIndex(u16::try_from(group.checked_sub(GROUP_BASE)?).ok()?);
        index.is_valid().then_some(Self::Eni(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{GROUP_DYING, GROUP_ENI};

    #[test]
    fn groups_and_uplinks_are_inverse_and_bounded() {
        assert_eq!(
            Uplink::of_group(Uplink::eni(5).group()),
            Some(Uplink::eni(5))
        );
        for group in [0, GROUP_BASE - 1, GROUP_DYING, GROUP_ENI] {
            assert_eq!(Uplink::of_group(group), None);
        }
        let last = Uplink::eni(MAX_ENI_INDEX).group();
        assert!(Uplink::of_group(last).is_some());
        assert_eq!(Uplink::of_group(last + 1), None);
    }
}
