//! Reads a state file of another process: of a dead daemon, or from a copied disk.
//!
//! The bytes are read once and opened in memory, because a database that was not closed repairs itself by writing. No
//! lock is taken, and the file is not changed.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use redb::{Database, ReadableDatabase, StorageBackend, backends::InMemoryBackend};

use super::{ABOUT, Contents, StoreError, VERSION, read};

/// The contents of the file at `path`, and the id of its boot.
///
/// # Errors
/// If the file cannot be read, is not a state file, or is of another version.
pub fn peek(path: &Path) -> Result<(Contents, String), StoreError> {
    let wrap = |operation| {
        move |source| StoreError::Io {
            operation,
            path: path.to_owned(),
            source,
        }
    };
    let bytes = fs::read(path).map_err(wrap("read"))?;
    let backend = InMemoryBackend::new();
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    backend.set_len(length).map_err(wrap("copy"))?;
    backend.write(0, &bytes).map_err(wrap("copy"))?;
    let contents = || -> Result<Option<(Contents, String)>, redb::Error> {
        let database = Database::builder().create_with_backend(backend)?;
        let boot = {
            let transaction = database.begin_read()?;
            let about = transaction.open_table(ABOUT)?;
            let text = |key: &str| -> Result<String, redb::Error> {
                let found = about.get(key)?.map(|text| text.value().to_owned());
                Ok(found.unwrap_or_default())
            };
            if text("version")? != VERSION {
                return Ok(None);
            }
            text("boot")?
        };
        Ok(read(&database)?.map(|contents| (contents, boot)))
    };
    // As at a start: the database panics on pages that were damaged after they were closed.
    let found = catch_unwind(AssertUnwindSafe(contents));
    let damaged = |_| Err(redb::Error::Corrupted("its pages are damaged".to_owned()));
    let found = found
        .unwrap_or_else(damaged)
        .map_err(|source| StoreError::Database {
            operation: "read",
            path: path.to_owned(),
            source: Box::new(source),
        })?;
    found.ok_or_else(|| {
        wrap("understand")(std::io::Error::other("it is of another version of ipamd"))
    })
}
