//! Modules beside each other that import each other.
//!
//! A module is its file together with the folder of the same name: that a file uses what is below it, and the other way
//! round, is within one module and no circle. Whatever stands beside it must be on one side of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::Tree;

type Edges = BTreeSet<(usize, usize)>;

/// A line for each circle, with the imports that make it.
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

/// By folder: which of its modules uses which other, and the first pair of files that shows it.
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
        "an import circle: {}; move what both sides need below both{}",
        members.join(", "),
        imports.concat()
    )
}

/// The sets of more than one node in which each is reached from each.
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
