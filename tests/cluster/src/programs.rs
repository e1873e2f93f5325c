//! Finds the cluster's programs. `make` builds them and passes the directories in the environment.

use std::{env, ffi::OsString, io, path::PathBuf};

/// Debian's directories, for iptables, mount and runc.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The directory of the cluster's programs.
///
/// # Errors
/// If `make` did not build them.
pub fn directory() -> io::Result<PathBuf> {
    built("HAWSER_CLUSTER_PROGRAMS", "cluster-programs")
}

/// The directory of the conformance suites.
///
/// # Errors
/// If `make` did not build them.
pub fn conformance() -> io::Result<PathBuf> {
    built("HAWSER_CONFORMANCE_PROGRAMS", "conformance-programs")
}

fn built(variable: &str, target: &str) -> io::Result<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by make, through the environment"
    )]
    let path = env::var(variable).map(PathBuf::from).unwrap_or_default();
    if path.join("complete").is_file() {
        return Ok(path);
    }
    let path = path.display();
    let text = format!("{variable} names no built programs ({path}): run `make {target}`");
    Err(io::Error::other(text))
}

/// The search path of the cluster's machines. The cluster's containerd comes before Debian's.
///
/// # Errors
/// As [`directory`].
pub fn search_path() -> io::Result<OsString> {
    let mut path = directory()?.into_os_string();
    path.push(":");
    path.push(SYSTEM);
    Ok(path)
}
