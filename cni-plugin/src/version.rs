//! The versions of the CNI protocol that this plugin serves: the one table that everything else uses.

/// A version of the CNI protocol that this plugin supports, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    V0_3_0,
    V0_3_1,
    V0_4_0,
    V1_0_0,
    V1_1_0,
}

/// 0.1.0 and 0.2.0 are not supported: their results have no interfaces, and no runtime that Kubernetes supports uses
/// them.
const TABLE: [(Version, &str); 5] = [
    (Version::V0_3_0, "0.3.0"),
    (Version::V0_3_1, "0.3.1"),
    (Version::V0_4_0, "0.4.0"),
    (Version::V1_0_0, "1.0.0"),
    (Version::V1_1_0, "1.1.0"),
];

impl Version {
    /// The version of an answer if the caller's own version is not known.
    pub const LATEST: Self = Self::V1_1_0;

    /// Parses a `cniVersion`.
    pub fn parse(text: &str) -> Option<Self> {
        TABLE
            .iter()
            .find(|(_, name)| *name == text)
            .map(|(version, _)| *version)
    }

    /// The text of a `cniVersion`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V0_3_0 => "0.3.0",
            Self::V0_3_1 => "0.3.1",
            Self::V0_4_0 => "0.4.0",
            Self::V1_0_0 => "1.0.0",
            Self::V1_1_0 => "1.1.0",
        }
    }
}

/// All supported versions, oldest first.
pub fn supported() -> Vec<&'static str> {
    TABLE.iter().map(|(_, name)| *name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_and_names_agree_and_are_ordered() {
        for window in TABLE.windows(2) {
            assert!(window[0].0 < window[1].0);
        }
        for (version, name) in TABLE {
            assert_eq!(version.as_str(), name);
            assert_eq!(Version::parse(name), Some(version));
        }
        assert_eq!(TABLE.last().map(|row| row.0), Some(Version::LATEST));
    }

    #[test]
    fn unknown_versions_are_unknown() {
        for text in ["", "0.1.0", "0.2.0", "1.0", "9.9.9", "1.1.0 "] {
            assert_eq!(Version::parse(text), None, "{text:?}");
        }
    }
}
