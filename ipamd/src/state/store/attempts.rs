//! The lock on the state directory, which also contains the number of starts that died while they opened the state
//! file.
//!
//! A corrupt page number makes the database allocate gigabytes before it checks anything, and other damage may end a
//! process in ways that it cannot catch: with a container's memory limit, every start would be killed at the same byte,
//! forever. A checksum of the whole file would have to be updated in every commit, and a test in another process would
//! cost time at every start. A count costs two system calls and works for any cause.
//!
//! The count is the length of the lock file: changing it needs no space on a full disk, is visible when the call
//! returns, and belongs to the holder of the lock. Makes no decisions about the state file.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::StoreError;

/// The number of consecutive deaths that are attributed to the file. A single one may have other causes: a node without
/// memory, an impatient operator.
pub(super) const FATAL: u64 = 2;

/// The lock, as long as the value exists; the kernel releases it however the process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock, or returns that another daemon has it.
    pub(super) fn take(path: &Path) -> Result<Self, StoreError> {
        let wrap = |source| StoreError::Io {
            operation: "lock",
            path: path.to_owned(),
            source,
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(wrap)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked {
                path: path.to_owned(),
            }),
            Err(TryLockError::Error(source)) => Err(wrap(source)),
        }
    }

    /// Starts an attempt to open the state file.
    pub(super) fn attempt(&self) -> Attempt<'_> {
        let before = self.0.metadata().map_or(0, |about| about.len());
        let attempt = Attempt {
            lock: &self.0,
            before,
        };
        attempt.count(before.saturating_add(1));
        attempt
    }
}

/// An attempt, which counts as a death unless it is dropped.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    lock: &'a File,
    before: u64,
}

impl Attempt<'_> {
    /// How many consecutive attempts before this one did not complete.
    pub(super) const fn died_before(&self) -> u64 {
        self.before
    }

    /// The file is now another one: the next start must not attribute the deaths to it.
    pub(super) fn is_the_first(&self) {
        self.count(1);
    }

    fn count(&self, deaths: u64) {
        // Without the count, everything works as with a file that does no harm.
        if let Err(error) = self.lock.set_len(deaths) {
            tracing::warn!(%error, "a start that dies while it reads the state file will not be counted");
        }
    }
}

impl Drop for Attempt<'_> {
    /// The attempt is complete, with success or with an error.
    fn drop(&mut self) {
        self.count(0);
    }
}
