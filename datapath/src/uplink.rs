//! Where a pod's packets leave the node, and how a pod's link says so.
//!
//! Owns the link groups of pods. Pure.

use nettypes::EniIndex;

use crate::constants::GROUP_BASE;

/// Where a pod's packets leave the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Uplink {
    /// By the ENI that owns the pod's address. Several pods share it.
    Eni(EniIndex),
}

impl Uplink {
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
            Self::Eni(index) => GROUP_BASE + index.get() as u32,
        }
    }

    /// The uplink behind a link group, or `None` if the group is not a pod's.
    #[must_use]
    pub fn of_group(group: u32) -> Option<Self> {
        let index = u16::try_from(group.checked_sub(GROUP_BASE)?).ok()?;
        EniIndex::new(index).map(Self::Eni)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constants::{GROUP_DYING, GROUP_ENI};

    #[test]
    fn groups_and_uplinks_are_inverse_and_bounded() {
        for index in std::iter::once(EniIndex::PRIMARY).chain(EniIndex::secondary()) {
            let uplink = Uplink::Eni(index);
            assert_eq!(Uplink::of_group(uplink.group()), Some(uplink));
        }
        for group in [0, GROUP_BASE - 1, GROUP_DYING, GROUP_ENI] {
            assert_eq!(Uplink::of_group(group), None);
        }
        let last = Uplink::Eni(EniIndex::LAST).group();
        assert_eq!(Uplink::of_group(last + 1), None);
    }
}
