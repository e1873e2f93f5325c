//! Parses one source file: the modules that it declares, the names that it defines or re-exports, and the paths in its
//! code.
//!
//! Code that is compiled only for tests is ignored, because a test may import anything.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{TokenStream, TokenTree};
use quote::ToTokens as _;
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

/// Segments, as in `crate::pool::Pool`.
pub type Segments = Vec<String>;

/// The relevant contents of a file.
#[derive(Debug, Default)]
pub struct Source {
    /// The header, as plain text.
    pub doc: String,
    /// `mod name;`, and whether it is compiled for tests only.
    pub modules: BTreeMap<String, bool>,
    /// Re-exported names, each with the path that it refers to.
    pub passed_on: BTreeMap<String, Segments>,
    /// `pub use path::*`.
    pub globs: Vec<Segments>,
    /// Paths that the code needs.
    pub paths: BTreeSet<Segments>,
}

impl Source {
    pub fn parse(text: &str) -> Result<Self, syn::Error> {
        let file = syn::parse_file(text)?;
        let mut source = Self {
            doc: doc(&file.attrs),
            ..Self::default()
        };
        let mut idents = BTreeSet::new();
        source.items(&file.items, &[], &mut idents);
        // A re-exported name is also an import if the file's own code uses it.
        let used: Vec<_> = source
            .passed_on
            .iter()
            .filter(|(name, _)| idents.contains(*name))
            .map(|(_, path)| path.clone())
            .collect();
        source.paths.extend(used);
        Ok(source)
    }

    fn items(&mut self, items: &[Item], inside: &[String], idents: &mut BTreeSet<String>) {
        for item in items.iter().filter(|item| !for_tests(attributes(item))) {
            match item {
                Item::Use(item) => self.import(item, inside),
                Item::Mod(ItemMod {
                    content: Some((_, items)),
                    ident,
                    ..
                }) => {
                    let inside = [inside, &[ident.to_string()]].concat();
                    self.items(items, &inside, idents);
                }
                Item::Mod(item) => drop(self.modules.insert(item.ident.to_string(), false)),
                item => self.code(item.to_token_stream(), inside.len(), idents),
            }
        }
        let tests = items.iter().filter(|item| for_tests(attributes(item)));
        for item in tests {
            if let Item::Mod(item) = item
                && item.content.is_none()
            {
                self.modules.insert(item.ident.to_string(), true);
            }
        }
    }

    fn import(&mut self, item: &ItemUse, inside: &[String]) {
        let passes_on = !matches!(item.vis, Visibility::Inherited) && inside.is_empty();
        let mut leaves = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut leaves);
        for (path, name) in leaves {
            let Some(path) = from_file(path, inside.len()) else {
                continue;
            };
            match (passes_on, name) {
                (true, Some(name)) => drop(self.passed_on.insert(name, path)),
                (true, None) => self.globs.push(path),
                (false, _) => drop(self.paths.insert(path)),
            }
        }
    }

    /// Every `a::b::c` in a stream of tokens, including those in macros.
    fn code(&mut self, tokens: TokenStream, depth: usize, idents: &mut BTreeSet<String>) {
        let mut path: Segments = Vec::new();
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.keep(&mut path, depth);
                    }
                    colons = 0;
                    idents.insert(ident.to_string());
                    path.push(ident.to_string());
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Group(group) => {
                    self.keep(&mut path, depth);
                    colons = 0;
                    self.code(group.stream(), depth, idents);
                }
                _ => {
                    self.keep(&mut path, depth);
                    colons = 0;
                }
            }
        }
        self.keep(&mut path, depth);
    }

    fn keep(&mut self, path: &mut Segments, depth: usize) {
        let path = std::mem::take(path);
        if path.len() > 1
            && let Some(path) = from_file(path, depth)
        {
            self.paths.insert(path);
        }
    }
}

/// Converts a path from inside `depth` inline modules to one relative to the file. None: it stays within them.
fn from_file(mut path: Segments, depth: usize) -> Option<Segments> {
    let supers = path.iter().take_while(|part| *part == "super").count();
    if depth == 0 || path[0] == "crate" {
        return Some(path);
    }
    if supers < depth {
        // A path in an inline module's own scope can also name another crate, which is not relevant here.
        return None;
    }
    path.drain(..depth);
    if path.first().is_none_or(|part| part != "super") {
        path.insert(0, "self".to_owned());
    }
    Some(path)
}

fn flatten(tree: &UseTree, path: &mut Segments, leaves: &mut Vec<(Segments, Option<String>)>) {
    match tree {
        UseTree::Path(part) => {
            path.push(part.ident.to_string());
            flatten(&part.tree, path, leaves);
            path.pop();
        }
        UseTree::Name(name) if name.ident == "self" => {
            leaves.push((path.clone(), path.last().cloned()));
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            leaves.push(([&path[..], &[name.clone()]].concat(), Some(name)));
        }
        UseTree::Rename(rename) => {
            let whole = [&path[..], &[rename.ident.to_string()]].concat();
            leaves.push((whole, Some(rename.rename.to_string())));
        }
        UseTree::Glob(_) => leaves.push((path.clone(), None)),
        UseTree::Group(group) => {
            for tree in &group.items {
                flatten(tree, path, leaves);
            }
        }
    }
}

fn doc(attributes: &[Attribute]) -> String {
    let lines = attributes.iter().filter_map(|attribute| {
        let syn::Meta::NameValue(pair) = &attribute.meta else {
            return None;
        };
        let syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) = &pair.value
        else {
            return None;
        };
        pair.path.is_ident("doc").then(|| text.value())
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let meta = &attribute.meta;
        meta.path().is_ident("test")
            || (meta.path().is_ident("cfg")
                && meta.to_token_stream().to_string().replace(' ', "") == "cfg(test)")
    })
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}
