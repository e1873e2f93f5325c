//! Copies the CNI plugin from the image into the container runtime's plugin directory on the host.
//!
//! The copy is written under another name, made executable, flushed to disk and then renamed. Therefore, the runtime always
//! finds a complete and executable plugin, either the old one or the new one. A running plugin is not affected (writing to
//! its file would fail with ETXTBSY). The directory determines the SELinux label.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use nix::sys::statvfs::{FsFlags, fstatvfs};

/// The plugin's name in the network configuration.
pub const NAME: &str = "hawser";
/// In the same directory, because a file cannot be renamed across file systems. The runtime executes no plugin with this
/// name.
const UNFINISHED: &str = ".hawser.new";
const MODE: u32 = 0o755;

/// Why the plugin was not installed. An existing plugin is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("cannot read the plugin of this image, {}", path.display())]
    Source { path: PathBuf, source: io::Error },
    #[error("{} is not a directory on the host: mount the runtime's plugin directory there", path.display())]
    NoDirectory { path: PathBuf, source: io::Error },
    #[error("cannot {operation} {}", path.display())]
    Write {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("{} has other contents than were written", path.display())]
    Differs { path: PathBuf },
    #[error("{} is mounted with noexec, so the runtime could not execute a plugin in it: remount it with exec, or configure another directory in the runtime and here", path.display())]
    NoExec { path: PathBuf },
}

/// The result of an installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Installed {
    /// The plugin was already installed. Nothing was written, so the directory may be read-only.
    Unchanged,
    Written,
}

/// Copies `plugin` into `directory`.
///
/// # Errors
/// [`InstallError`]
pub fn install(plugin: &Path, directory: &Path) -> Result<Installed, InstallError> {
    let content = fs::read(plugin).map_err(|source| InstallError::Source {
        path: plugin.to_owned(),
        source,
    })?;
    let no_directory = |source| InstallError::NoDirectory {
        path: directory.to_owned(),
        source,
    };
    // For a file, `open` alone would succeed.
    fs::read_dir(directory).map_err(no_directory)?;
    let host = File::open(directory).map_err(no_directory)?;
    let mounted = fstatvfs(&host).map_err(io::Error::from);
    if during("examine", directory, mounted)?
        .flags()
        .contains(FsFlags::ST_NOEXEC)
    {
        let path = directory.to_owned();
        return Err(InstallError::NoExec { path });
    }
    // One installation at a time: another one would replace the unfinished file, and this one would rename a part of it.
    // The kernel releases the lock with the process.
    during("lock", directory, host.lock())?;
    let target = directory.join(NAME);
    if holds(&target, &content) {
        return Ok(Installed::Unchanged);
    }
    let unfinished = directory.join(UNFINISHED);
    let placed = write(&unfinished, &content).and_then(|()| {
        during(
            "rename a file to",
            &target,
            fs::rename(&unfinished, &target),
        )?;
        during("flush", directory, host.sync_all())
    });
    if placed.is_err() {
        // If this fails, the next attempt replaces the file.
        fs::remove_file(&unfinished).unwrap_or_default();
    }
    placed?;
    if !holds(&target, &content) {
        return Err(InstallError::Differs { path: target });
    }
    Ok(Installed::Written)
}

/// Removes the plugin. A missing plugin is not an error.
///
/// # Errors
/// [`InstallError::Write`]
pub fn remove(directory: &Path) -> Result<(), InstallError> {
    let target = directory.join(NAME);
    match fs::remove_file(&target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => during("remove", &target, other),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), InstallError> {
    // Symbolic links are not followed.
    let create = || {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(MODE).open(path)
    };
    let created = match create() {
        // An earlier attempt was interrupted.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            during("remove", path, fs::remove_file(path))?;
            create()
        }
        created => created,
    };
    let mut file = during("create", path, created)?;
    // The umask may have changed the mode when the file was created.
    let mode = file.set_permissions(Permissions::from_mode(MODE));
    during("make executable", path, mode)?;
    during("write", path, file.write_all(content))?;
    during("flush", path, file.sync_all())
}

fn during<T>(
    operation: &'static str,
    path: &Path,
    result: io::Result<T>,
) -> Result<T, InstallError> {
    result.map_err(|source| InstallError::Write {
        operation,
        path: path.to_owned(),
        source,
    })
}

/// Whether `path` is an executable file with this content.
fn holds(path: &Path, content: &[u8]) -> bool {
    let executable = fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o777 == MODE);
    executable && fs::read(path).is_ok_and(|found| found == content)
}

#[cfg(test)]
mod tests;
