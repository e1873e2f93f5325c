//! Checks the layout of the code by reading the sources: no import cycles, no crowded folders, and a header in every file.
//!
//! Owns the rules. Uses no other crate of the workspace, and has no exceptions for single crates.
//!
//! | Part | Does |
//! |---|---|
//! | `tree` | finds the files of a crate and which module each of them is |
//! | `source` | parses one file: its modules, its names, and the paths in it |
//! | `imports` | resolves each path to the file that defines it |
//! | `cycles` | finds modules that import each other |
//! | `folders` | counts entries and reads headers |

#![forbid(unsafe_code)]

mod cycles;
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

/// Folders without sources of this project.
const SKIPPED: [&str; 3] = ["target", ".git", "corpus"];

/// The files below one folder, by path. Only Rust sources are stored with their text.
#[derive(Debug, Default)]
pub struct Files(BTreeMap<PathBuf, Option<String>>);

impl Files {
    /// Reads everything below `root`; paths are relative to it.
    ///
    /// # Errors
    /// If a file cannot be read.
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

/// Returns one line for each violation of a rule.
///
/// # Errors
/// If a source is not Rust.
pub fn faults(files: &Files) -> Result<Vec<String>, String> {
    let tree = Tree::build(files)?;
    let mut faults = folders::crowded(files);
    faults.extend(folders::without_header(files));
    faults.extend(folders::without_fences(&tree));
    faults.extend(cycles::all(&tree, &imports::edges(&tree)));
    Ok(faults)
}
