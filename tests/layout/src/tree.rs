//! Assigns each file to a module of a crate root.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{Files, source::Source};

/// A file that is not only compiled for tests.
#[derive(Debug)]
pub struct Module {
    pub path: PathBuf,
    /// The file that declares it. None: it is a crate root.
    pub parent: Option<usize>,
    pub children: BTreeMap<String, usize>,
    pub source: Source,
}

/// All modules, parents before children.
#[derive(Debug, Default)]
pub struct Tree(pub Vec<Module>);

impl Tree {
    /// A file that no other file declares is a crate root: a library, a binary, or a test.
    pub fn build(files: &Files) -> Result<Self, String> {
        let mut sources = BTreeMap::new();
        for (path, text) in files.sources() {
            let source =
                Source::parse(text).map_err(|error| format!("{}: {error}", path.display()))?;
            sources.insert(path.to_owned(), source);
        }
        let mut declared = BTreeSet::new();
        for (path, source) in &sources {
            for name in source.modules.keys() {
                declared.extend(child(&sources, path, name));
            }
        }
        let roots: Vec<PathBuf> = sources
            .keys()
            .filter(|path| !declared.contains(*path))
            .cloned()
            .collect();
        let mut tree = Self::default();
        for root in roots {
            tree.add(&mut sources, &root, None);
        }
        Ok(tree)
    }

    fn add(
        &mut self,
        sources: &mut BTreeMap<PathBuf, Source>,
        path: &Path,
        parent: Option<usize>,
    ) -> Option<usize> {
        let children: Vec<(String, PathBuf)> = sources
            .get(path)?
            .modules
            .iter()
            .filter(|(_, for_tests)| !**for_tests)
            .filter_map(|(name, _)| Some((name.clone(), child(sources, path, name)?)))
            .collect();
        let number = self.0.len();
        self.0.push(Module {
            path: path.to_owned(),
            parent,
            children: BTreeMap::new(),
            source: sources.remove(path)?,
        });
        for (name, path) in children {
            if let Some(child) = self.add(sources, &path, Some(number)) {
                self.0[number].children.insert(name, child);
            }
        }
        Some(number)
    }

    /// The modules from the root to `number`, without the root.
    pub fn line(&self, number: usize) -> Vec<usize> {
        let mut line = Vec::new();
        let mut at = number;
        while let Some(parent) = self.0[at].parent {
            line.push(at);
            at = parent;
        }
        line.reverse();
        line
    }

    pub fn root(&self, mut number: usize) -> usize {
        while let Some(parent) = self.0[number].parent {
            number = parent;
        }
        number
    }
}

/// The file of `mod name;` in `path`: in the folder with the file's name, or next to a crate root.
fn child(sources: &BTreeMap<PathBuf, Source>, path: &Path, name: &str) -> Option<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let own = folder.join(path.file_stem().unwrap_or_default());
    let file = format!("{name}.rs");
    [
        own.join(&file),
        own.join(name).join("mod.rs"),
        folder.join(&file),
        folder.join(name).join("mod.rs"),
    ]
    .into_iter()
    .find(|path| sources.contains_key(path))
}
