//! Compares `docs/faults.md` and `docs/refusals.md` with the sources: every row of the fault model exists, and so does
//! every test that either page names. The crates with refusals compare their texts with the page.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use repo_checks::catalogue;

type Outcome = Result<(), Box<dyn std::error::Error>>;

const ROWS: usize = 53;
/// Rows of the second table, N1 and following.
const NEIGHBOURS: usize = 54;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust sources in `directory`, concatenated.
fn sources(directory: &Path, all: &mut String) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, all)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push_str(&fs::read_to_string(&path)?);
        }
    }
    Ok(())
}

/// The names that follow `before` in a text.
fn names<'a>(text: &'a str, before: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    text.split(before)
        .skip(1)
        .filter_map(move |rest| rest.split(end).next())
}

/// The texts in backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

fn all_sources() -> io::Result<String> {
    let mut text = String::new();
    for part in [
        "planner",
        "datapath",
        "proto",
        "cni-plugin",
        "ipamd",
        "vpc-sim",
        "tests",
    ] {
        sources(&root().join(part), &mut text)?;
    }
    Ok(text)
}

#[test]
fn every_refusal_names_an_existing_test() -> Outcome {
    let text = all_sources()?;
    let functions: BTreeSet<&str> = names(&text, "fn ", '(').collect();
    for part in ["From the daemon", "From the plugin"] {
        let entries = catalogue::part(part)?;
        assert!(!entries.is_empty(), "{part}");
        for (name, entry) in entries {
            assert!(!entry.shown_by.is_empty(), "{name} names no test");
            for test in &entry.shown_by {
                assert!(functions.contains(&**test), "{name}: {test} is no test");
            }
        }
    }
    Ok(())
}

#[test]
fn the_page_has_every_row_and_names_existing_tests() -> Outcome {
    let text = all_sources()?;
    let functions: BTreeSet<&str> = names(&text, "fn ", '(').collect();
    let simulated = fs::read_to_string(root().join("tests/sim/src/faults.rs"))?;
    let simulated: BTreeSet<&str> = names(&simulated, "= \"", '"').collect();

    let page = fs::read_to_string(root().join("docs/faults.md"))?;
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| #"));
    let mut expected = (1..=ROWS)
        .map(|row| row.to_string())
        .chain((1..=NEIGHBOURS).map(|row| format!("N{row}")));
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [number, _fault, _behaviour, shown_by] = cells[..] else {
            return Err(format!("not four cells: {row}").into());
        };
        assert_eq!(
            Some(number),
            expected.next().as_deref(),
            "rows are in order, and none is missing"
        );
        let mut shown = 0;
        for name in quoted(shown_by) {
            let known = match name.strip_prefix("sim: ") {
                Some(kind) => simulated.contains(kind),
                None => functions.contains(name),
            };
            assert!(known, "row {number} names \"{name}\", which is no test");
            shown += 1;
        }
        assert!(shown > 0, "row {number} names no test");
    }
    assert_eq!(expected.next(), None, "the page ends too early");
    Ok(())
}
