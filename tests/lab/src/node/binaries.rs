//! The paths of the binaries under test. `make` builds them and passes their paths in the environment.

use std::path::PathBuf;

/// The CNI plugin, built static.
///
/// # Panics
/// If it does not exist: the tests must fail and not be skipped.
#[must_use]
pub fn plugin() -> PathBuf {
    find("HAWSER_PLUGIN")
}

/// The node daemon.
///
/// # Panics
/// If it does not exist.
#[must_use]
pub fn ipamd() -> PathBuf {
    find("HAWSER_IPAMD")
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
