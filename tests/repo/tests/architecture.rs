//! Compares `ARCHITECTURE.md` with the tree: every path on the page exists, and the page lists every folder of the three
//! large crates.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// The source folders whose subfolders the page lists.
const LISTED: [&str; 3] = ["ipamd/src", "planner/src", "datapath/src"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The paths in backquotes, outside of fenced blocks. Absolute paths are those of a node.
fn paths(page: &str) -> BTreeSet<&str> {
    let text = page.split("```").step_by(2);
    text.flat_map(|text| text.split('`').skip(1).step_by(2))
        .filter(|quoted| quoted.contains('/') && !quoted.contains(' ') && !quoted.starts_with('/'))
        .collect()
}

/// Whether a folder contains modules other than tests.
fn has_modules(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with("tests") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[test]
fn every_path_of_the_page_exists() -> Outcome {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let paths = paths(&page);
    assert!(paths.len() > 50, "only {} paths were found", paths.len());
    let missing: Vec<_> = paths
        .into_iter()
        .filter(|path| !root().join(path).exists())
        .collect();
    assert!(missing.is_empty(), "these do not exist: {missing:?}");
    Ok(())
}

#[test]
fn the_page_lists_every_folder() -> Outcome {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md"))?;
    let paths = paths(&page);
    for base in LISTED {
        for entry in fs::read_dir(root().join(base))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() && has_modules(&entry.path())? {
                let folder = format!("{base}/{}", entry.file_name().to_string_lossy());
                assert!(paths.contains(&*folder), "{folder} is not on the page");
            }
        }
    }
    Ok(())
}
