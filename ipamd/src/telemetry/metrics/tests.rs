//! The text as a scraper reads it, checked as strictly as by Prometheus's own linter, and the names that must not
//! change.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::*;

/// Every event has happened once.
fn busy() -> Metrics {
    let metrics = Metrics::new();
    let took = Duration::from_millis(3);
    for (action, failure) in [
        ("CreateNetworkInterface", None),
        ("AssignPrivateIpAddresses", Some("RequestLimitExceeded")),
        ("DetachNetworkInterface", Some("no_answer")),
        ("DescribeNetworkInterfaces", Some("other")),
    ] {
        metrics.ec2_begun(action);
        metrics.ec2_ended(action, failure, took);
    }
    metrics.request("add", "ok", took);
    metrics.request("add", "POOL_EMPTY", took);
    metrics.request("del", "ok", took);
    metrics.stage("add", "wire", took);
    metrics.waited("granted", "create", took);
    metrics.committed(took);
    metrics.repaired("rule", 1);
    metrics.spans_dropped("queue_full", 1);
    metrics.task_panicked("conflist");
    metrics.ready(took);
    metrics.pace("CreateNetworkInterface", 5.0, took);
    metrics.pool(&pool());
    metrics
}

/// A node with its primary ENI and one spare address.
fn pool() -> Snapshot {
    use planner::{Config, Event, Mac, Mono, Observed, Planner, event::EniAttachment, limits};
    let instance = limits::lookup("t3.small").expect("in the table").clone();
    let mut planner = Planner::new(
        Config::default(),
        instance,
        planner::Placement::like_primary("subnet-1".into()),
        1,
    );
    let now = Mono::from_epoch(Duration::from_secs(1));
    let eni = Observed {
        eni: "eni-1".into(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        subnet: "subnet-1".into(),
        subnet_cidr: Some("10.0.0.0/20".parse().expect("a CIDR")),
        security_groups: Vec::new(),
        primary: [10, 0, 0, 4].into(),
        addresses: vec![[10, 0, 0, 5].into()],
        prefixes: vec![],
        attached: Some(EniAttachment {
            id: "eni-attach-1".into(),
            card: 0,
            device: 0,
            settled: true,
        }),
        managed: true,
        tagged_ours: true,
    };
    planner.on(Event::Inventory(vec![eni]), now);
    planner.snapshot(now)
}

/// Metric families by name with their type, after a check of each line.
fn lint(text: &str) -> BTreeMap<String, String> {
    let (mut helped, mut types, mut seen) = (BTreeSet::new(), BTreeMap::new(), BTreeSet::new());
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && helped.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert!(helped.contains(name), "no help before {line}");
            assert!(
                types.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{line}"
            );
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            value
                .parse::<f64>()
                .unwrap_or_else(|_| panic!("no number: {line}"));
            assert!(seen.insert(series.to_owned()), "twice: {line}");
            let name = series.split('{').next().expect("a name");
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|suffix| name.strip_suffix(suffix))
                .find(|family| {
                    matches!(
                        types.get(*family).map(String::as_str),
                        Some("histogram" | "summary")
                    )
                })
                .unwrap_or(name);
            let kind = types
                .get(family)
                .unwrap_or_else(|| panic!("no type before {line}"));
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{line}"
            );
            let ours = family.starts_with("hawser_");
            assert!(
                !ours || (kind == "counter") == family.ends_with("_total"),
                "{line}"
            );
        }
    }
    types
}

#[test]
fn the_text_is_what_a_scraper_expects() {
    lint(&busy().text());
    lint(&Metrics::new().text());
}

#[test]
fn names_and_types_are_kept() {
    let found: Vec<_> = lint(&busy().text())
        .into_iter()
        .map(|(name, kind)| format!("{name} {kind}"))
        .collect();
    let golden = include_str!("names.txt").lines().collect::<Vec<_>>();
    assert_eq!(
        found, golden,
        "dashboards and alerts break when a name goes"
    );
}

#[test]
fn a_code_that_is_not_known_is_counted_as_other() {
    let text = busy().text();
    assert!(text.contains(
        r#"awscni_aws_api_error_count{api="DescribeNetworkInterfaces",error="other"} 1"#
    ));
}

#[test]
fn an_eni_that_is_gone_takes_its_series_with_it() {
    let metrics = busy();
    assert!(
        metrics
            .text()
            .contains(r#"awscni_assigned_ip_per_eni{eni="eni-1"} 0"#)
    );
    let mut empty = pool();
    empty.enis.clear();
    metrics.pool(&empty);
    assert!(!metrics.text().contains("eni-1"));
}

#[test]
fn a_call_under_way_is_in_progress_and_then_not() {
    let metrics = Metrics::new();
    metrics.ec2_begun("CreateNetworkInterface");
    let line = r#"awscni_ipamd_action_inprogress{fn="increaseDatastorePool"}"#;
    assert!(metrics.text().contains(&format!("{line} 1\n")));
    metrics.ec2_ended("CreateNetworkInterface", None, Duration::ZERO);
    assert!(metrics.text().contains(&format!("{line} 0\n")));
}

#[test]
fn a_refusal_for_want_of_an_address_counts_as_upstream_counts_it() {
    let metrics = Metrics::new();
    metrics.request("add", "SUBNET_EXHAUSTED", Duration::ZERO);
    metrics.request("add", "STORE", Duration::ZERO);
    assert!(
        metrics
            .text()
            .contains("\nawscni_no_available_ip_addresses 1\n")
    );
    assert!(metrics.text().contains("\nawscni_add_ip_req_count 2\n"));
}
