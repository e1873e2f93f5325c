//! The layout rules, held against the workspace, and against small crates that break one rule each.

use std::path::Path;

use layout::{Files, faults};

#[test]
fn the_workspace_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = Files::read(&root).expect("the checkout can be read");
    let faults = faults(&files).expect("the sources are Rust");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

const PARENT: &str = "//! A folder. May use nothing. Must not know anything.\n";

fn found(texts: &[(&str, &str)]) -> Vec<String> {
    faults(&Files::from_texts(texts)).expect("the texts are Rust")
}

#[test]
fn files_that_import_each_other_are_found() {
    let found = found(&[
        ("a/src/lib.rs", "//! Root.\nmod left;\nmod right;\n"),
        (
            "a/src/left.rs",
            "//! Left.\nuse crate::right::Right;\npub struct Left(Right);\n",
        ),
        (
            "a/src/right.rs",
            "//! Right.\npub struct Right;\nfn f() -> Option<crate::left::Left> { None }\n",
        ),
    ]);
    let [cycle] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(
        cycle.starts_with("an import cycle: a/src/left.rs, a/src/right.rs"),
        "{cycle}"
    );
}

#[test]
fn a_path_in_a_macro_is_an_import() {
    let found = found(&[
        ("a/src/lib.rs", "//! Root.\nmod left;\nmod right;\n"),
        (
            "a/src/left.rs",
            "//! Left.\npub fn f() { println!(\"{}\", super::right::g()) }\n",
        ),
        (
            "a/src/right.rs",
            "//! Right.\npub fn g() -> u8 { crate::left::f(); 1 }\n",
        ),
    ]);
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_name_that_is_passed_on_leads_to_the_file_that_defines_it() {
    let texts = |lower: &'static str| {
        vec![
            (
                "a/src/lib.rs",
                "//! Root.\nmod lower;\nmod upper;\npub use upper::Upper;\n",
            ),
            (
                "a/src/upper.rs",
                "//! Upper.\npub use crate::lower::Lower;\npub struct Upper(Lower);\n",
            ),
            ("a/src/lower.rs", lower),
        ]
    };
    let sound = found(&texts("//! Lower.\npub struct Lower;\n"));
    assert!(sound.is_empty(), "{sound:?}");
    let cycle = found(&texts(
        "//! Lower.\nuse crate::Upper;\npub struct Lower(Option<Box<Upper>>);\n",
    ));
    assert_eq!(cycle.len(), 1, "{cycle:?}");
}

#[test]
fn folders_that_import_each_other_through_different_files_are_found() {
    let left = format!("{PARENT}pub mod one;\npub mod two;\n");
    let right = format!("{PARENT}pub mod three;\npub mod four;\n");
    let found = found(&[
        ("a/src/lib.rs", "//! Root.\nmod left;\nmod right;\n"),
        ("a/src/left.rs", &left),
        (
            "a/src/left/one.rs",
            "//! 1.\nuse crate::right::three::A;\npub struct One(A);\n",
        ),
        ("a/src/left/two.rs", "//! 2.\npub struct Two;\n"),
        ("a/src/right.rs", &right),
        ("a/src/right/three.rs", "//! 3.\npub struct A;\n"),
        (
            "a/src/right/four.rs",
            "//! 4.\nuse crate::left::two::Two;\npub struct B(Two);\n",
        ),
    ]);
    let [cycle] = &found[..] else {
        panic!("{found:?}");
    };
    assert!(
        cycle.starts_with("an import cycle: a/src/left.rs, a/src/right.rs"),
        "{cycle}"
    );
}

#[test]
fn what_only_tests_import_is_no_cycle() {
    let found = found(&[
        ("a/src/lib.rs", "//! Root.\nmod left;\nmod right;\n"),
        (
            "a/src/left.rs",
            "//! Left.\nuse crate::right::Right;\npub struct Left(Right);\n",
        ),
        (
            "a/src/right.rs",
            "//! Right.\npub struct Right;\n#[cfg(test)]\nmod tests {\n use crate::left::Left;\n}\n",
        ),
    ]);
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_crowded_folder_is_found_and_a_module_with_its_folder_counts_once() {
    let names: Vec<String> = (0..15).map(|n| format!("a/src/m{n:02}.rs")).collect();
    let header = "//! A module.\n";
    let mut texts: Vec<(&str, &str)> = names.iter().map(|name| (&**name, header)).collect();
    texts.push(("a/src/lib.rs", header));
    texts.push(("a/src/m00/child.rs", header));
    assert!(found(&texts).is_empty());
    texts.push(("a/src/one_more.rs", header));
    assert_eq!(
        found(&texts),
        ["a/src has 16 entries, 15 are allowed; group what belongs together"]
    );
}

#[test]
fn a_file_without_a_header_is_found() {
    assert_eq!(
        found(&[("a/src/lib.rs", "pub fn f() {}\n")]),
        ["a/src/lib.rs does not begin with a `//!` header"]
    );
}

#[test]
fn a_folder_that_does_not_say_what_it_may_use_and_must_not_know_is_found() {
    let found = found(&[
        ("a/src/lib.rs", "//! Root.\nmod folder;\n"),
        ("a/src/folder.rs", "//! A folder.\nmod child;\n"),
        ("a/src/folder/child.rs", "//! A child.\n"),
    ]);
    assert_eq!(found.len(), 2, "{found:?}");
}
