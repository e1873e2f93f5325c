//! Tests the Prometheus and Grafana files of `deploy/` with Prometheus's own tool and the daemon's metrics: alerts fire
//! and do not fire when they should, panels find data, and neither uses series that the daemon does not have.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

use ipamd::telemetry::metrics::Metrics;
use lab::Lab;
use planner::{Config, Mono, Planner, limits};
use proto::refusal::Reason;
use serde_json::Value;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    alerts_fire_and_are_silent_when_they_should,
    alerts_are_tested_on_series_that_the_daemon_has,
    every_alert_has_a_case_and_a_runbook_that_is_there,
    every_panel_finds_data,
    prometheus_takes_the_metrics_of_a_node,
);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(root().join(path))
}

/// Runs Prometheus's tool in a directory.
fn promtool(directory: &Path, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut tool = Command::new("promtool")
        .args(arguments)
        .current_dir(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| {
            io::Error::other(format!("promtool: {error}; `make tools` installs it"))
        })?;
    if let Some(mut stdin) = tool.stdin.take() {
        stdin.write_all(input.as_bytes())?;
    }
    tool.wait_with_output()
}

fn passes(directory: &Path, arguments: &[&str]) -> Outcome {
    let output = promtool(directory, arguments, "")?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (&output.stdout, &output.stderr);
    let told = [String::from_utf8_lossy(out), String::from_utf8_lossy(err)].concat();
    Err(format!("promtool {arguments:?}:\n{told}").into())
}

fn alerts_fire_and_are_silent_when_they_should() -> Outcome {
    let directory = root().join("deploy/prometheus");
    passes(&directory, &["check", "rules", "alerts.yaml"])?;
    passes(&directory, &["test", "rules", "alerts.test.yaml"])
}

/// The metrics of a daemon after every event that has a label.
fn eventful() -> Metrics {
    let (metrics, took) = (Metrics::new(), Duration::from_millis(3));
    let codes = [
        "AccessDenied",
        "AuthFailure",
        "Blocked",
        "InsufficientFreeAddressesInSubnet",
        "InternalError",
        "InvalidGroup.NotFound",
        "InvalidNetworkInterface.InUse",
        "InvalidSubnetID.NotFound",
        "NetworkInterfaceLimitExceeded",
        "no_answer",
        "OptInRequired",
        "PendingVerification",
        "RequestLimitExceeded",
        "SecurityGroupsPerInterfaceLimitExceeded",
        "ServiceUnavailable",
        "TagLimitExceeded",
        "TagPolicyViolation",
        "Unavailable",
        "UnauthorizedOperation",
    ];
    for action in [
        "CreateNetworkInterface",
        "DeleteNetworkInterface",
        "AssignPrivateIpAddresses",
        "DescribeNetworkInterfaces",
    ] {
        for failure in codes.into_iter().map(Some).chain([None]) {
            metrics.ec2_begun(action);
            metrics.ec2_ended(action, failure, took);
        }
    }
    let reasons = (0..).map_while(|number| Reason::try_from(number).ok());
    for result in reasons.map(|reason| reason.as_str_name()).chain(["ok"]) {
        for verb in ["add", "del", "check", "gc", "status"] {
            metrics.request(verb, result, took);
        }
    }
    for (verb, stages) in [
        ("add", ["turn", "address", "wire", "commit"].as_slice()),
        ("del", &["turn", "unwire", "commit"]),
    ] {
        stages
            .iter()
            .for_each(|stage| metrics.stage(verb, stage, took));
    }
    metrics.waited("granted", "create", took);
    metrics.committed(took);
    metrics.link_removal_failed();
    metrics.repaired("rule", 1);
    metrics.ready(took);
    metrics.pace("CreateNetworkInterface", 5.0, took);
    let instance = limits::lookup("t3.small").expect("in the table").clone();
    let planner = Planner::new(
        Config::default(),
        instance,
        planner::Placement::like_primary("subnet-1".into()),
        1,
    );
    metrics.pool(&planner.snapshot(Mono::from_epoch(took)));
    metrics
}

/// One series in Prometheus's text format: its name and its labels.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Series {
    name: String,
    labels: BTreeMap<String, String>,
}

impl Series {
    /// `name{label="value", …}`; none of our values has a comma or a quote.
    fn read(text: &str) -> Self {
        let (name, labels) = text.split_once('{').unwrap_or((text, "}"));
        let pairs = labels.trim_end_matches('}').split(',');
        let pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
        let labels = pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()));
        Self {
            name: name.trim().to_owned(),
            labels: labels.collect(),
        }
    }

    /// In the form of a test case for the tool.
    fn on(&self, instance: &str) -> String {
        let mut text = format!("{}{{instance=\"{instance}\"", self.name);
        for (key, value) in &self.labels {
            write!(text, ",{key}=\"{value}\"").expect("a string takes everything");
        }
        text + "}"
    }
}

fn series(text: &str) -> BTreeSet<Series> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let named = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0));
    named.map(Series::read).collect()
}

/// The rest of each line that starts with `key`, without quotes.
fn values<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = text
        .lines()
        .map(|line| line.trim_start().trim_start_matches("- "));
    lines.filter_map(move |line| Some(line.strip_prefix(key)?.trim().trim_matches(['\'', '"'])))
}

/// A test case with a series that no daemon has would prove nothing. Labels that scraping adds are Prometheus's own;
/// histogram bounds are ignored, because test cases need only two of them.
fn alerts_are_tested_on_series_that_the_daemon_has() -> Outcome {
    let bare = |mut series: Series| {
        for key in ["instance", "job", "le"] {
            series.labels.remove(key);
        }
        series
    };
    let known: BTreeSet<Series> = series(&eventful().text()).into_iter().map(bare).collect();
    let cases = read("deploy/prometheus/alerts.test.yaml")?;
    let mut seen = 0;
    for text in values(&cases, "series:") {
        let series = bare(Series::read(text));
        assert!(
            series.name == "up" || known.contains(&series),
            "no daemon has {series:?}"
        );
        seen += 1;
    }
    assert!(seen > 30, "{seen} series");
    Ok(())
}

/// The anchors that GitHub generates.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim());
    titles
        .map(|title| {
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().to_lowercase().replace(' ', "-")
        })
        .collect()
}

fn every_alert_has_a_case_and_a_runbook_that_is_there() -> Outcome {
    let (rules, cases) = (
        read("deploy/prometheus/alerts.yaml")?,
        read("deploy/prometheus/alerts.test.yaml")?,
    );
    let anchors = anchors(&read("docs/refusals.md")?);
    let mut alerts = 0;
    for rule in rules.split("- alert: ").skip(1) {
        let name = rule.lines().next().unwrap_or_default();
        let fires = format!("alertname: {name}\n        exp_alerts:\n          - ");
        let silent = format!("alertname: {name}, exp_alerts: []");
        assert!(cases.contains(&fires), "{name} is not seen to fire");
        assert!(cases.contains(&silent), "{name} is not seen to be silent");
        for key in ["summary:", "description:", "runbook:"] {
            let text = values(rule, key).next().unwrap_or_default();
            assert!(!text.is_empty(), "{name} has no {key}");
        }
        let severity = values(rule, "labels:").next().unwrap_or_default();
        let severities = ["critical", "warning", "info"];
        assert!(
            severities.iter().any(|known| severity.contains(known)),
            "{name}"
        );
        let runbook = values(rule, "runbook:").next().unwrap_or_default();
        let Some(anchor) = runbook.strip_prefix("docs/refusals.md#") else {
            return Err(format!("{name} leads to {runbook}").into());
        };
        // One alert links to the heading of its reason, and the catalogue has every reason.
        let by_reason = anchor == "{{ $labels.result | toLower }}";
        assert!(
            by_reason || anchors.contains(anchor),
            "{name}: no #{anchor}"
        );
        alerts += 1;
    }
    assert!(alerts > 10, "{alerts} alerts");
    Ok(())
}

/// Every expression of the dashboard, with its variables filled in.
fn expressions(dashboard: &Value, found: &mut Vec<(String, String)>) {
    match dashboard {
        Value::Object(fields) => {
            if let Some(Value::String(expr)) = fields.get("expr") {
                let filled = expr
                    .replace("$__rate_interval", "5m")
                    .replace("$instance", ".*");
                let legend = fields.get("legendFormat").and_then(Value::as_str);
                found.push((filled, legend.unwrap_or_default().to_owned()));
            }
            fields.values().for_each(|value| expressions(value, found));
        }
        Value::Array(all) => all.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

/// Prometheus evaluates each expression with the metrics of an eventful daemon, and must find data. If a panel's legend
/// uses a label, the data must have it.
fn every_panel_finds_data() -> Outcome {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/hawser.json")?)?;
    let mut found = Vec::new();
    expressions(&dashboard, &mut found);
    assert!(found.len() > 30, "{} expressions", found.len());
    let mut case =
        "evaluation_interval: 1m\ntests:\n  - interval: 1m\n    input_series:\n".to_owned();
    for (n, series) in series(&eventful().text()).iter().enumerate() {
        // No gauge may be zero, no two counters equal, and there must be a start.
        let step = n % 7 + 1;
        let text = series.on("node");
        writeln!(
            case,
            "      - series: '{text}'\n        values: '1+{step}x30'"
        )?;
    }
    case.push_str("    promql_expr_test:\n");
    for (expr, legend) in &found {
        // 1 if there is data; data without the legend's label would be a second result.
        let label = legend
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"));
        let (question, answer) = match label {
            Some(label) => (
                format!(
                    "count by (shown) (label_replace({expr}, \"shown\", \"yes\", \"{label}\", \".+\")) >= bool 1"
                ),
                "{shown=\"yes\"}",
            ),
            None => (format!("count({expr}) >= bool 1"), "{}"),
        };
        let question = serde_json::to_string(&question)?;
        writeln!(
            case,
            "      - expr: {question}\n        eval_time: 25m\n        exp_samples: [{{ labels: '{answer}', value: 1 }}]"
        )?;
    }
    let lab = Lab::start(SimConfig::default())?;
    fs::write(lab.dir().join("panels.yaml"), case)?;
    passes(lab.dir(), &["test", "rules", "panels.yaml"])
}

/// The linter's hints are about the AWS VPC CNI's names, which are kept; it has none about ours.
fn prometheus_takes_the_metrics_of_a_node() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    let pod = node.add_pod("web")?;
    node.delete_pod(pod)?;
    let answer = node.metrics()?;
    let (_, text) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    let output = promtool(lab.dir(), &["check", "metrics"], text)?;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let ours: Vec<&str> = told
        .lines()
        .filter(|line| !line.starts_with("awscni_"))
        .collect();
    // 3 means hints; 1 would be an unreadable text.
    assert!(matches!(output.status.code(), Some(0 | 3)), "{output:?}");
    assert_eq!(ours, Vec::<&str>::new());
    Ok(())
}
