//! The recorded results of the conformance specs, and the page that shows them.

use std::{fs, path::Path};

use cluster::{
    conformance::{critest, page, record::Record},
    worker::PROXY_MODES,
};
use libtest_mimic::Trial;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "conformance::the_page_shows_the_last_record",
            page_shows_record,
        ),
        Trial::test("conformance::every_spec_passed", every_spec_passed),
    ]
}

fn record() -> std::io::Result<Record> {
    fs::read_to_string(Path::new(CRATE).join("conformance.txt"))?.parse()
}

fn page_shows_record() -> crate::Outcome {
    let record = record()?;
    let page = fs::read_to_string(Path::new(CRATE).join("../../docs/kubernetes-conformance.md"))?;
    assert!(
        page == page::render(&record),
        "run `make conformance`: docs/kubernetes-conformance.md is not of tests/cluster/conformance.txt"
    );
    Ok(())
}

fn every_spec_passed() -> crate::Outcome {
    let record = record()?;
    let names = |suite: &str| {
        let specs = record.specs.iter().filter(|spec| spec.suite == suite);
        let mut names: Vec<_> = specs.map(|spec| spec.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        names
    };
    for mode in PROXY_MODES {
        let names = names(mode);
        assert_eq!(names.len(), page::SPECS, "{mode}");
        let whole =
            |name: &&str| name.starts_with("[sig-network] ") && name.ends_with("[Conformance]");
        assert!(names.iter().all(whole), "{names:?}");
    }
    assert_eq!(names(critest::SUITE).len(), 4);
    let failed: Vec<_> = page::failed(&record).collect();
    assert!(failed.is_empty(), "{failed:?}");
    Ok(())
}
