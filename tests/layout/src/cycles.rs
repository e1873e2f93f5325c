//! Finds modules of one folder that import each other.
//!
//! A module is a file together with the folder of the same name. Imports between the file and its folder are within one
//! module and are not a cycle.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

type Edges = BTreeSet<(usize, usize)>;

/// Returns a line for each cycle, with the imports that cause it.
pub fn all(tree: &Tree, edges: &Edges) -> Vec<String> {
    let mut faults = Vec::new();
    for between in by_folder(tree, edges).values() {
        let groups: Edges = between.keys().copied().collect();
        for knot in knots(&groups) {
            let imports = between
                .iter()
                .filter(|((a, b), _)| knot.contains(a) && knot.contains(b))
                .map(|(_, import)| *import);
            faults.push(describe(tree, &knot, imports));
        }
    }
    faults
}

/// For each folder: which of its modules uses which other one, with the first pair of files as evidence.
fn by_folder(
    tree: &Tree,
    edges: &Edges,
) -> BTreeMap<usize, BTreeMap<(usize, usize), (usize, usize)>> {
    let mut folders: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for &(from, to) in edges {
        let (a, b) = (tree.line(from), tree.line(to));
        let shared = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
        if let (Some(&left), Some(&right)) = (a.get(shared), b.get(shared)) {
            let folder = shared.checked_sub(1).map_or(tree.root(from), |at| a[at]);
            let between = folders.entry(folder).or_default();
            between.entry((left, right)).or_insert((from, to));
        }
    }
    folders
}

fn describe(
    tree: &Tree,
    knot: &BTreeSet<usize>,
    imports: impl Iterator<Item = (usize, usize)>,
) -> String {
    let name = |number: usize| tree.0[number].path.display();
    let members: Vec<String> = knot.iter().map(|n| name(*n).to_string()).collect();
    let imports: Vec<String> = imports
        .map(|(a, b)| format!("\n    {} uses {}", name(a), name(b)))
        .collect();
    format!(
        "an import cycle: {}; move the shared part below both{}",
        members.join(", "),
        imports.concat()
    )
}

/// The strongly connected components that have more than one node.
fn knots(edges: &Edges) -> Vec<BTreeSet<usize>> {
    let mut out: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (from, to) in edges {
        out.entry(*from).or_default().push(*to);
    }
    let reach: BTreeMap<usize, BTreeSet<usize>> = out
        .keys()
        .map(|from| (*from, reached(&out, *from)))
        .collect();
    let mut knots: Vec<BTreeSet<usize>> = Vec::new();
    for (from, seen) in &reach {
        let knot: BTreeSet<usize> = seen
            .iter()
            .copied()
            .filter(|to| reach.get(to).is_some_and(|back| back.contains(from)))
            .collect();
        if knot.len() > 1 && knot.contains(from) && !knots.contains(&knot) {
            knots.push(knot);
        }
    }
    knots
}

fn reached(out: &BTreeMap<usize, Vec<usize>>, from: usize) -> BTreeSet<usize> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from];
    while let Some(at) = next.pop() {
        for to in out.get(&at).into_iter().flatten() {
            if seen.insert(*to) {
                next.push(*to);
            }
        }
    }
    seen
}
