//! The lock on the state directory, and in it the number of starts that died while they opened the state file.
//!
//! A damaged page number has the database ask for gigabytes before it looks at anything, and other damage may end a
//! process in other ways that nothing inside it can catch: under a container's memory limit every start would be killed
//! at the same byte, for ever. A checksum of the whole file would have to be renewed in every commit, and a trial by
//! another process be paid for at every start; a count costs two system calls and heals whatever the cause was.
//!
//! The count is the length of the lock file: a change of it needs no room on a full disk, is there as soon as the call
//! returns, and belongs to whoever holds the lock. It decides nothing about the state file.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use super::StoreError;

/// So many deaths in a row are the file's fault. One alone may be anybody's: a node that ran out of memory, an impatient
/// operator.
pub(super) const FATAL: u64 = 2;

/// The lock, for as long as the value lives; the kernel lets go of it however the process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Takes the lock, or says that another daemon has it.
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

    /// Begins an attempt to open the state file.
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

/// An attempt that counts as a death unless it is dropped.
#[derive(Debug)]
pub(super) struct Attempt<'a> {
    lock: &'a File,
    before: u64,
}

impl Attempt<'_> {
    /// How many in a row before this one did not come to their end.
    pub(super) const fn died_before(&self) -> u64 {
        self.before
    }

    /// The file is another one now: the next start shall not take it for the one that killed.
    pub(super) fn is_the_first(&self) {
        self.count(1);
    }

    fn count(&self, deaths: u64) {
        // Without the count all is as it would be with a file that harms nobody.
        if let Err(error) = self.lock.set_len(deaths) {
            tracing::warn!(%error, "a start that dies over the state file will not be counted");
        }
    }
}

impl Drop for Attempt<'_> {
    /// It came to its end, whether in success or in an error.
    fn drop(&mut self) {
        self.count(0);
    }
}
