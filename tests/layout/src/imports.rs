//! Resolves the paths in each file to the files that define them.

use std::collections::BTreeSet;

use crate::{source::Segments, tree::Tree};

/// The most re-exports to follow for one name. More would be a cycle of re-exports.
const MOST_HOPS: usize = 16;

/// The imports, as pairs of module numbers.
pub fn edges(tree: &Tree) -> BTreeSet<(usize, usize)> {
    let mut edges = BTreeSet::new();
    for (number, module) in tree.0.iter().enumerate() {
        for path in &module.source.paths {
            if let Some(target) = resolve(tree, number, path, MOST_HOPS)
                && target != number
            {
                edges.insert((number, target));
            }
        }
    }
    edges
}

/// The file that defines `path`, as resolved in the file `from`. None: it is in another crate.
fn resolve(tree: &Tree, from: usize, path: &Segments, hops: usize) -> Option<usize> {
    let mut at = from;
    let mut rest = path.as_slice();
    match rest.first()?.as_str() {
        "crate" => {
            at = tree.root(from);
            rest = &rest[1..];
        }
        "self" => rest = &rest[1..],
        "super" => {
            while rest.first().is_some_and(|part| part == "super") {
                at = tree.0[at].parent?;
                rest = &rest[1..];
            }
        }
        // A path may begin with a module that the file declares. Anything else is a local name or another crate.
        first if tree.0[from].children.contains_key(first) => {}
        _ => return None,
    }
    descend(tree, at, rest, hops)
}

fn descend(tree: &Tree, mut at: usize, mut rest: &[String], hops: usize) -> Option<usize> {
    let hops = hops.checked_sub(1)?;
    while let [name, after @ ..] = rest {
        let module = &tree.0[at];
        if let Some(child) = module.children.get(name) {
            at = *child;
            rest = after;
            continue;
        }
        if let Some(path) = module.source.passed_on.get(name) {
            let whole = [path.as_slice(), after].concat();
            return resolve(tree, at, &whole, hops);
        }
        let through = module.source.globs.iter().find_map(|glob| {
            let target = resolve(tree, at, glob, hops)?;
            let known = &tree.0[target];
            let has =
                known.children.contains_key(name) || known.source.passed_on.contains_key(name);
            has.then(|| descend(tree, target, rest, hops)).flatten()
        });
        return Some(through.unwrap_or(at));
    }
    Some(at)
}
