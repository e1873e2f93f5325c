//! The mark of a daemon that serves: a file that it renews, so that the plugin can tell a daemon that restarts from one
//! that is gone. Another mark tells that the node is being given back to the AWS VPC CNI, so no daemon will come.
//!
//! The runtime asks STATUS every few seconds, and a failure makes the node NotReady. An upgrade or a crash of the daemon
//! takes seconds and an ADD waits for its end, so the node is well meanwhile.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the daemon renews its mark.
pub const PERIOD: Duration = Duration::from_secs(5);
/// For how long a mark counts. A daemon may be away for 30 s, whenever in its period it went.
const GRACE: Duration = Duration::from_secs(35);

/// The mark of the daemon at `socket`.
#[must_use]
pub fn path(socket: &Path) -> PathBuf {
    socket.with_file_name("last-served")
}

/// The mark of a node that is being given back, beside `socket`.
#[must_use]
pub fn handed_back(socket: &Path) -> PathBuf {
    socket.with_file_name("handed-back")
}

/// Renews the mark. Only the time of the file's change counts.
///
/// # Errors
/// The error of the file system.
pub fn mark(socket: &Path) -> io::Result<()> {
    fs::write(
        path(socket),
        "The modification time says when ipamd served last.\n",
    )
}

/// Whether the daemon at `socket` served a short time ago.
#[must_use]
pub fn is_recent(socket: &Path) -> bool {
    let modified = fs::metadata(path(socket)).and_then(|found| found.modified());
    // A mark in the future is from before the clock was set back: nothing is known then.
    modified.is_ok_and(|modified| modified.elapsed().is_ok_and(|age| age < GRACE))
}

#[cfg(test)]
mod tests {
    use std::fs::{File, FileTimes};
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_mark_counts_while_it_is_young() {
        let directory =
            std::env::temp_dir().join(format!("hawser-presence-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let socket = directory.join("ipamd.sock");
        assert!(!is_recent(&socket), "there is none");
        mark(&socket).unwrap();
        assert!(is_recent(&socket));
        let file = File::options().write(true).open(path(&socket)).unwrap();
        file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))
            .unwrap();
        assert!(!is_recent(&socket), "it is old");
        fs::remove_dir_all(directory).unwrap();
    }
}
