//! The page of the results.

use std::collections::BTreeMap;

use super::{
    critest,
    record::{Outcome, Record, Spec},
};
use crate::worker::PROXY_MODES;

/// The specs of sig-network that conformance consists of, in this version of Kubernetes.
pub const SPECS: usize = 47;

/// The specs that failed.
pub fn failed(record: &Record) -> impl Iterator<Item = &Spec> {
    let specs = record.specs.iter();
    specs.filter(|spec| spec.outcome == Outcome::Failed)
}

const HEAD: &str = "# Conformance of the network

`make conformance` runs these specs against a cluster of two nodes on a simulated VPC, with Hawser as its network. They are
the `[sig-network] … [Conformance]` specs of Kubernetes' own end-to-end tests, once with kube-proxy in iptables mode and once
in nftables mode, and the networking specs of cri-tools' `critest` against containerd. All programs are built from their Go
modules; the test images are built on the same machine and have the names of the originals. Three specs run at a time. A spec
that fails beside others is run once more: \"passed alone\". The numbers are seconds.

This page is written by `make conformance` from its record, `tests/cluster/conformance.txt`. A test compares both.
";

/// The page for a record.
#[must_use]
pub fn render(record: &Record) -> String {
    let mut page = HEAD.to_owned();
    page.push_str("\n| Of the last run | |\n|---|---|\n");
    for (name, value) in &record.facts {
        row(&mut page, &[name, value]);
    }
    for mode in PROXY_MODES {
        let of_mode = || record.specs.iter().filter(|spec| spec.suite == mode);
        let passed = of_mode().filter(|spec| spec.outcome != Outcome::Failed);
        let value = format!("{} of {}", passed.count(), of_mode().count());
        row(&mut page, &[&format!("passed in {mode} mode"), &value]);
    }
    page.push_str("\n## Kubernetes\n\n| Spec | iptables mode | nftables mode |\n|---|---|---|\n");
    let mut by_name: BTreeMap<&str, BTreeMap<&str, &Spec>> = BTreeMap::new();
    for spec in &record.specs {
        by_name
            .entry(&spec.name)
            .or_default()
            .insert(&spec.suite, spec);
    }
    for (name, suites) in &by_name {
        if suites.contains_key(critest::SUITE) {
            continue;
        }
        let cells = PROXY_MODES.map(|mode| suites.get(mode).map_or_else(String::new, cell));
        row(&mut page, &[name, &cells[0], &cells[1]]);
    }
    page.push_str("\n## Container runtime\n\n| Spec of critest | |\n|---|---|\n");
    for (name, suites) in &by_name {
        if let Some(spec) = suites.get(critest::SUITE) {
            row(&mut page, &[name, &cell(spec)]);
        }
    }
    page
}

fn cell(spec: &&Spec) -> String {
    match spec.outcome {
        Outcome::Failed => "failed".to_owned(),
        outcome => format!("{outcome}, {}", spec.seconds),
    }
}

fn row(page: &mut String, cells: &[&str]) {
    page.push_str("| ");
    page.push_str(&cells.join(" | "));
    page.push_str(" |\n");
}
