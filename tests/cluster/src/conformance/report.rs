//! The JSON report of Ginkgo, the framework of both programs.

use std::{fs, io, path::Path};

use serde_json::Value;

/// A spec in a report.
#[derive(Debug)]
pub(super) struct Reported {
    pub name: String,
    pub passed: bool,
    pub seconds: u64,
}

/// Reads the specs that were run, or with `--ginkgo.dry-run` would have been.
pub(super) fn read(file: &Path) -> io::Result<Vec<Reported>> {
    let suites: Value = serde_json::from_str(&fs::read_to_string(file)?)?;
    let suites = suites.as_array().into_iter().flatten();
    let specs = suites.filter_map(|suite| suite["SpecReports"].as_array());
    Ok(specs.flatten().filter_map(reported).collect())
}

/// `None` for a spec that the focus does not select, and for what runs before and after all specs.
fn reported(spec: &Value) -> Option<Reported> {
    if spec["LeafNodeType"] != "It" || spec["State"] == "skipped" {
        return None;
    }
    let containers = spec["ContainerHierarchyTexts"].as_array();
    let texts = containers
        .into_iter()
        .flatten()
        .chain([&spec["LeafNodeText"]]);
    let texts: Vec<_> = texts.filter_map(Value::as_str).collect();
    Some(Reported {
        name: texts.join(" "),
        passed: spec["State"] == "passed",
        // Nanoseconds in the report.
        seconds: spec["RunTime"]
            .as_u64()
            .unwrap_or(0)
            .div_ceil(1_000_000_000),
    })
}
