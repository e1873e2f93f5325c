//! Texts that must not change unnoticed: compared with the files in `tests/e2e/golden`.
//!
//! `GOLDEN=write make test` updates the files; review the difference.

use std::{fs, io, path::PathBuf};

/// Whether `text` equals the file `tests/e2e/golden/<name>`.
///
/// # Errors
/// The first line that differs, or the error of the file system.
pub fn compare(name: &str, text: &str) -> io::Result<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if rewrite() {
        return fs::write(path, text);
    }
    let golden = fs::read_to_string(&path)
        .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
    if golden == text {
        return Ok(());
    }
    let (mut left, mut right) = (golden.lines(), text.lines());
    for line in 1.. {
        let (wanted, found) = (left.next(), right.next());
        if wanted != found {
            return Err(io::Error::other(format!(
                "golden/{name}, line {line}: expected {wanted:?}, found {found:?}; the whole text:\n{text}"
            )));
        }
        if wanted.is_none() {
            break;
        }
    }
    Err(io::Error::other(format!("golden/{name} ends otherwise")))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a person asks for it through the environment"
)]
fn rewrite() -> bool {
    std::env::var("GOLDEN").is_ok_and(|value| value == "write")
}
