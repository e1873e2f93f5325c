//! DELs that no daemon received: one small file each, written by the plugin and processed by the daemon.
//!
//! Owns the directory's layout and the format of the files. A file exists completely or not at all, and writing it
//! twice is harmless: it only says "this sandbox is gone".

use std::fs::{self, DirBuilder, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::names::SandboxKey;
use crate::v1;

/// The first line of every file. Another first line is from a release that this one cannot read.
const FORM: &str = "hawser tombstone 1";
/// A file that is being written; the daemon ignores it.
const UNFINISHED: &str = "tmp";
/// A file that could not be read, kept for troubleshooting.
const UNREADABLE: &str = "unreadable";

/// The time limit of a DEL if the network configuration has none. It has left its tombstone, or ended otherwise, when it is over.
pub const DEL_LIMIT: Duration = Duration::from_secs(30);

/// The directory of tombstones for the daemon at `socket`.
#[must_use]
pub fn directory(socket: &Path) -> PathBuf {
    socket.with_file_name("tombstones")
}

/// Writes a tombstone, which is durable when this returns. Creates the directory with mode 0700 if it does not exist.
///
/// # Errors
/// The error of the file system; there is no tombstone then.
pub fn leave(directory: &Path, key: &SandboxKey) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let path = directory.join(name(key));
    let unfinished = path.with_extension(UNFINISHED);
    let mut file = File::create(&unfinished)?;
    write!(
        file,
        "{FORM}\n{}\n{}\n{}\n",
        key.network, key.container_id, key.ifname
    )?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    // Without this, the file name may be lost in a power failure.
    File::open(directory)?.sync_all()
}

/// The contents of the directory.
#[derive(Debug, Default)]
pub struct Found {
    /// Deleted sandboxes, each with the file to remove after processing.
    pub standing: Vec<(PathBuf, SandboxKey)>,
    /// Files that could not be read, at their new path. Each is reported once.
    pub unreadable: Vec<PathBuf>,
}

/// All tombstones.
///
/// # Errors
/// The error of the file system; a missing directory is empty.
pub fn all(directory: &Path) -> io::Result<Found> {
    let mut found = Found::default();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|e| e.to_str());
        if matches!(extension, Some(UNFINISHED | UNREADABLE)) {
            continue;
        }
        match fs::read_to_string(&path).ok().as_deref().and_then(read) {
            Some(key) => found.standing.push((path, key)),
            None => {
                let aside = path.with_extension(UNREADABLE);
                fs::rename(&path, &aside)?;
                found.unreadable.push(aside);
            }
        }
    }
    Ok(found)
}

/// The three names are not valid file names (a network's name may have 255 bytes), so the file name is a hash; the
/// content is authoritative.
fn name(key: &SandboxKey) -> String {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    format!("{}-{:016x}", key.container_id, hasher.finish())
}

fn read(text: &str) -> Option<SandboxKey> {
    let mut lines = text.lines();
    if lines.next() != Some(FORM) {
        return None;
    }
    let mut part = || lines.next().map(str::to_owned);
    let (network, container_id, ifname) = (part()?, part()?, part()?);
    let wire = v1::Sandbox {
        network,
        container_id,
        ifname,
    };
    SandboxKey::try_from(wire).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(container_id: &str) -> SandboxKey {
        let wire = v1::Sandbox {
            network: "n".repeat(255),
            container_id: container_id.to_owned(),
            ifname: "eth0".to_owned(),
        };
        SandboxKey::try_from(wire).unwrap()
    }

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let unique = format!("hawser-tombstones-{}-{name}", std::process::id());
            Self(std::env::temp_dir().join(unique))
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_repeated_tombstone_is_found_once() {
        let place = Place::new("found");
        let longest = "c".repeat(128);
        for _ in 0..3 {
            leave(&place.0, &key("a")).unwrap();
        }
        leave(&place.0, &key(&longest)).unwrap();
        let Found {
            standing,
            unreadable,
        } = all(&place.0).unwrap();
        let mut keys: Vec<_> = standing.into_iter().map(|(_, key)| key).collect();
        keys.sort();
        assert_eq!(keys, [key("a"), key(&longest)]);
        assert!(unreadable.is_empty());
    }

    #[test]
    fn no_directory_holds_nothing() {
        let Found {
            standing,
            unreadable,
        } = all(Path::new("/no/such/directory")).unwrap();
        assert!(standing.is_empty() && unreadable.is_empty());
    }

    #[test]
    fn garbage_is_set_aside_and_partial_files_are_ignored() {
        let place = Place::new("rubbish");
        leave(&place.0, &key("a")).unwrap();
        fs::write(place.0.join("rubbish"), "rubbish").unwrap();
        fs::write(place.0.join("b.tmp"), FORM).unwrap();
        let Found {
            standing,
            unreadable,
        } = all(&place.0).unwrap();
        assert_eq!((standing.len(), unreadable.len()), (1, 1));
        let Found {
            standing,
            unreadable,
        } = all(&place.0).unwrap();
        assert_eq!((standing.len(), unreadable.len()), (1, 0), "told once");
        assert!(place.0.join("b.tmp").exists());
    }
}
