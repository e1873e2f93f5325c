//! Checks the number of entries of each folder, and the headers of files and folders.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{Files, tree::Tree};

/// The most entries that a folder may have. A longer list is hard to read.
const MOST_ENTRIES: usize = 15;

/// Files that every crate or folder has.
const NOT_COUNTED: [&str; 3] = ["lib.rs", "main.rs", "mod.rs"];

/// Folders with too many entries. A module's file and its folder of the same name are one entry.
pub fn crowded(files: &Files) -> Vec<String> {
    let mut folders: BTreeMap<&Path, BTreeSet<String>> = BTreeMap::new();
    let sources: BTreeSet<&Path> = files
        .sources()
        .flat_map(|(path, _)| path.ancestors().skip(1))
        .collect();
    for path in files.paths() {
        for (entry, folder) in path.ancestors().zip(path.ancestors().skip(1)) {
            let name = entry.file_name().unwrap_or_default().to_string_lossy();
            let is_root = folder.as_os_str().is_empty();
            if !is_root && sources.contains(folder) && !NOT_COUNTED.contains(&&*name) {
                let name = name.strip_suffix(".rs").unwrap_or(&name).to_owned();
                folders.entry(folder).or_default().insert(name);
            }
        }
    }
    let crowded = folders
        .iter()
        .filter(|(_, entries)| entries.len() > MOST_ENTRIES);
    crowded
        .map(|(folder, entries)| {
            format!(
                "{} has {} entries, {MOST_ENTRIES} are allowed; group what belongs together",
                folder.display(),
                entries.len()
            )
        })
        .collect()
}

/// Sources without a header.
pub fn without_header(files: &Files) -> Vec<String> {
    let without = files.sources().filter(|(_, text)| !text.starts_with("//!"));
    without
        .map(|(path, _)| format!("{} does not begin with a `//!` header", path.display()))
        .collect()
}

/// Folders whose module file does not say what the folder may use and what it must not know.
pub fn without_fences(tree: &Tree) -> Vec<String> {
    let folders = tree
        .0
        .iter()
        .filter(|module| module.parent.is_some() && !module.children.is_empty());
    let mut faults = Vec::new();
    for module in folders {
        let words: Vec<&str> = module.source.doc.split_whitespace().collect();
        let doc = words.join(" ").to_lowercase();
        for (wanted, what) in [
            (&["may use", "uses no", "uses nothing"][..], "May use …"),
            (&["must not", "knows no"][..], "Must not know …"),
        ] {
            if !wanted.iter().any(|words| doc.contains(words)) {
                let path = module.path.display();
                faults.push(format!(
                    "{path}: the header has no \"{what}\" for its folder"
                ));
            }
        }
    }
    faults
}
