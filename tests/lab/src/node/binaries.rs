//! The paths of the binaries under test. `make` builds them and passes their paths in the environment.

use std::path::PathBuf;

/// Which build of Hawser.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Release {
    /// This checkout's.
    #[default]
    Current,
    /// That of the commit that upgrades start from; the Makefile names it.
    Previous,
}

impl Release {
    /// The CNI plugin, built static.
    ///
    /// # Panics
    /// If it does not exist: the tests must fail and not be skipped.
    #[must_use]
    pub fn plugin(self) -> PathBuf {
        match self {
            Self::Current => find("HAWSER_PLUGIN"),
            Self::Previous => find("HAWSER_PREVIOUS_PLUGIN"),
        }
    }

    /// The node daemon.
    ///
    /// # Panics
    /// If it does not exist.
    #[must_use]
    pub fn ipamd(self) -> PathBuf {
        match self {
            Self::Current => find("HAWSER_IPAMD"),
            Self::Previous => find("HAWSER_PREVIOUS_IPAMD"),
        }
    }
}

/// This checkout's plugin.
///
/// # Panics
/// As [`Release::plugin`].
#[must_use]
pub fn plugin() -> PathBuf {
    Release::Current.plugin()
}

/// This checkout's daemon.
///
/// # Panics
/// As [`Release::ipamd`].
#[must_use]
pub fn ipamd() -> PathBuf {
    Release::Current.ipamd()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lab is configured by make, through the environment"
)]
fn find(variable: &str) -> PathBuf {
    let path = std::env::var(variable)
        .map(PathBuf::from)
        .unwrap_or_default();
    assert!(
        path.is_file(),
        "{variable} names no binary ({}): run `make test` or `make demo`",
        path.display()
    );
    path
}
