//! The layout rules of the code, checked by reading the sources: no import circles, no crowded folders, and a header in
//! every file.
//!
//! Owns the rules. Uses nothing of the workspace and knows no crate's contents: a rule has no exceptions.
//!
//! | Part | Does |
//! |---|---|
//! | `tree` | finds the files of a crate and which module each of them is |
//! | `source` | parses one file: its modules, its names, and the paths in it |
//! | `imports` | follows each path to the file that defines what it names |
//! | `circles` | finds modules that import each other |
//! | `folders` | counts entries and reads headers |

#![forbid(unsafe_code)]

mod circles;
mod folders;
mod imports;
mod source;
mod tree;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use tree::Tree;

/// Folders that hold no source of ours.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

/// The files below one folder, by path. Only Rust sources have their text.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Option<String>>);

impl Files {
    /// Reads everything below `root`; paths are relative to it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut files = Self::default();
        files.add(root, root)?;
        Ok(files)
    }

    fn add(&mut self, root: &Path, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let (path, name) = (entry.path(), entry.file_name());
            if entry.file_type()?.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) {
                    self.add(root, &path)?;
                }
                continue;
            }
            let is_rust = path.extension().is_some_and(|ending| ending == "rs");
            let text = is_rust.then(|| fs::read_to_string(&path)).transpose()?;
            let relative = path.strip_prefix(root).unwrap_or(&path).to_owned();
            self.0.insert(relative, text);
        }
        Ok(())
    }

    /// Files from memory, for tests of the rules.
    #[must_use]
    pub fn from_texts(texts: &[(&str, &str)]) -> Self {
        let files = texts
            .iter()
            .map(|(path, text)| (PathBuf::from(path), Some((*text).to_owned())));
        Self(files.collect())
    }

    fn sources(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.0
            .iter()
            .filter_map(|(path, text)| Some((path.as_path(), text.as_deref()?)))
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }
}

/// Everything that breaks a rule, one line each.
///
/// # Errors
/// If a source is not Rust.
pub fn faults(files: &Files) -> Result<Vec<String>, String> {
    let tree = Tree::build(files)?;
    let mut faults = folders::crowded(files);
    faults.extend(folders::without_header(files));
    faults.extend(folders::without_fences(&tree));
    faults.extend(circles::all(&tree, &imports::edges(&tree)));
    Ok(faults)
}
