//! The settings of the AWS VPC CNI's own manifest, each setting that is not served, misspelt names; and the page that
//! lists them all.

use std::{cell::RefCell, collections::BTreeSet, fs, path::Path};

use super::*;
use crate::config::Mistakes;

/// What the manifest of the AWS VPC CNI v1.23 sets.
const MANIFEST: [(&str, &str); 31] = [
    ("ADDITIONAL_ENI_TAGS", "{}"),
    ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "true"),
    ("AWS_VPC_ENI_MTU", "9001"),
    ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "false"),
    ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "false"),
    (
        "AWS_VPC_K8S_CNI_LOG_FILE",
        "/host/var/log/aws-routed-eni/ipamd.log",
    ),
    ("AWS_VPC_K8S_CNI_LOGLEVEL", "DEBUG"),
    ("AWS_VPC_K8S_CNI_RANDOMIZESNAT", "prng"),
    ("AWS_VPC_K8S_CNI_VETHPREFIX", "eni"),
    (
        "AWS_VPC_K8S_PLUGIN_LOG_FILE",
        "/var/log/aws-routed-eni/plugin.log",
    ),
    ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "DEBUG"),
    ("CLUSTER_ENDPOINT", "https://api.example"),
    ("CLUSTER_NAME", "lab"),
    ("DISABLE_INTROSPECTION", "false"),
    ("DISABLE_METRICS", "false"),
    ("DISABLE_NETWORK_RESOURCE_PROVISIONING", "false"),
    ("DISABLE_TCP_EARLY_DEMUX", "false"),
    ("ENABLE_IMDS_ONLY_MODE", "false"),
    ("ENABLE_IPv4", "true"),
    ("ENABLE_IPv6", "false"),
    ("ENABLE_MULTI_NIC", "false"),
    ("ENABLE_POD_ENI", "false"),
    ("ENABLE_PREFIX_DELEGATION", "false"),
    ("ENABLE_SUBNET_DISCOVERY", "true"),
    ("MY_NODE_NAME", "node-1"),
    ("MY_POD_NAME", "aws-node-x"),
    ("NETWORK_POLICY_ENFORCING_MODE", "standard"),
    ("VPC_CNI_VERSION", "v1.23.1"),
    ("VPC_ID", "vpc-0"),
    ("WARM_ENI_TARGET", "1"),
    ("WARM_PREFIX_TARGET", "1"),
];

fn map<'a>(pairs: &[(&'a str, &'a str)]) -> BTreeMap<&'a str, &'a str> {
    pairs.iter().copied().collect()
}

fn read(pairs: &[(&str, &str)]) -> Result<Config, Mistakes> {
    Config::read(&map(pairs))
}

fn notices(pairs: &[(&str, &str)]) -> Vec<(Kind, String)> {
    let notices = read(pairs).unwrap().notices.into_iter();
    notices
        .map(|notice| (notice.kind, notice.to_string()))
        .collect()
}

#[test]
fn the_manifest_of_the_aws_vpc_cni_starts_without_a_warning() {
    let told = notices(&MANIFEST);
    let kinds: BTreeSet<_> = told.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, BTreeSet::from([Kind::NotServedStock]), "{told:?}");
    let name = "NETWORK_POLICY_ENFORCING_MODE";
    assert!(
        told.iter().any(|(_, text)| text.starts_with(name)),
        "{told:?}"
    );
}

#[test]
fn what_would_give_pods_something_else_is_refused_by_its_value() {
    for (name, on, off) in [
        ("ENABLE_POD_ENI", "true", "false"),
        ("ENABLE_MULTI_NIC", "1", "f"),
        ("ENABLE_IMDS_ONLY_MODE", "TRUE", "False"),
        ("NETWORK_POLICY_ENFORCING_MODE", "Strict", "none"),
    ] {
        let Mistakes(lines) = read(&[(name, on)]).unwrap_err();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with(&format!("{name}={on}: ")), "{lines:?}");
        assert_eq!(notices(&[(name, off)]), [], "{name}={off}");
        assert_eq!(notices(&[(name, "")]), [], "{name} is empty");
    }
}

#[test]
fn what_a_node_does_without_is_told() {
    for (name, on, off) in [
        ("ANNOTATE_POD_IP", "true", "false"),
        ("AWS_EC2_ENDPOINT", "https://ec2.example", ""),
    ] {
        let told = notices(&[(name, on)]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, Kind::NotServed);
        assert_eq!(notices(&[(name, off)]), [], "{name}={off}");
    }
}

#[test]
fn a_misspelt_name_is_reported_with_the_nearest_one() {
    for (name, wanted) in [
        ("HAWSER_BLOCK_POD_IMSD", "HAWSER_BLOCK_POD_IMDS"),
        ("WARM_IP_TARGETS", "WARM_IP_TARGET"),
        ("AWS_VPC_CNI_EXTERNALSNAT", "AWS_VPC_K8S_CNI_EXTERNALSNAT"),
        ("ENABLE_IPV6", "ENABLE_IPv6"),
    ] {
        let told = notices(&[(name, "1")]);
        assert_eq!(
            told,
            [(
                Kind::Unknown,
                format!("{name}=1 is not known: did you mean {wanted}?")
            )]
        );
    }
    let far = notices(&[("HAWSER_COLOUR_OF_THE_LIVE_PAGE", "red")]);
    assert!(far[0].1.ends_with("docs/settings.md lists all settings"));
}

#[test]
fn names_of_other_programs_are_ignored() {
    let others = [
        ("PATH", "/bin"),
        ("HOSTNAME", "node-1"),
        ("HAWSER_METRICS_SERVICE_HOST", "10.100.0.7"),
        ("HAWSER_METRICS_SERVICE_PORT_HTTP", "61678"),
        ("HAWSER_METRICS_PORT", "tcp://10.100.0.7:61678"),
        ("HAWSER_METRICS_PORT_61678_TCP_ADDR", "10.100.0.7"),
        ("AWS_ENDPOINT_URL_EC2", "https://ec2.example"),
    ];
    assert_eq!(notices(&others), []);
}

#[test]
fn malformed_tags_start_the_daemon_without_them() {
    let config = read(&[("ADDITIONAL_ENI_TAGS", "{\"team\": 7}")]).unwrap();
    assert!(config.cloud.extra_tags.is_empty());
    assert_eq!(config.notices[0].kind, Kind::Ignored);
}

#[test]
fn a_tag_that_ec2_would_refuse_is_left_out_alone() {
    let tags = r#"{"team": "net", "aws:owner": "x"}"#;
    let config = read(&[
        ("ADDITIONAL_ENI_TAGS", tags),
        ("CLUSTER_NAME", &"c".repeat(257)),
    ]);
    let config = config.unwrap();
    let kept: Vec<_> = config.cloud.extra_tags.into_keys().collect();
    assert_eq!(
        (kept, config.cloud.cluster),
        (vec!["team".to_owned()], None)
    );
    let told: Vec<_> = config.notices.iter().map(ToString::to_string).collect();
    let named = |name: &str| told.iter().any(|text| text.contains(name));
    assert!(
        named("ADDITIONAL_ENI_TAGS[\"aws:owner\"] is ignored"),
        "{told:?}"
    );
    assert!(named("CLUSTER_NAME"), "{told:?}");
}

#[test]
fn a_negative_count_is_not_set() {
    let unset = read(&[]).unwrap();
    for name in [
        "WARM_IP_TARGET",
        "MINIMUM_IP_TARGET",
        "MAX_ENI",
        "WARM_ENI_TARGET",
        "WARM_PREFIX_TARGET",
    ] {
        for value in ["-1", "", "-7"] {
            assert_eq!(read(&[(name, value)]).unwrap(), unset, "{name}={value}");
        }
        assert!(read(&[(name, "many")]).is_err());
    }
}

#[test]
fn settings_are_shown_where_they_make_a_difference() {
    let shown = differing(&map(&[
        ("WARM_IP_TARGET", "5"),
        ("MAX_ENI", "-1"),
        ("DISABLE_METRICS", "false"),
        ("AWS_VPC_ENI_MTU", "1500"),
        ("HOME", "/root"),
    ]));
    let wanted = [("AWS_VPC_ENI_MTU", "1500"), ("WARM_IP_TARGET", "5")];
    assert_eq!(
        shown,
        wanted.map(|(a, b)| (a.to_owned(), b.to_owned())).into()
    );
}

#[test]
fn secrets_are_not_shown() {
    assert_eq!(
        shown("OTEL_EXPORTER_OTLP_HEADERS", "k=secret"),
        "(not shown)"
    );
    assert_eq!(
        shown("HTTPS_PROXY", "http://me:secret@proxy:3128"),
        "http://…@proxy:3128"
    );
    assert_eq!(shown("https_proxy", "me:secret@proxy"), "…@proxy");
    assert_eq!(shown("CLUSTER_NAME", &"a".repeat(300)).chars().count(), 201);
}

/// A source that notes what it is asked for.
#[derive(Default)]
struct Asked(RefCell<BTreeSet<String>>);

impl Strings for Asked {
    fn get(&self, name: &str) -> Option<String> {
        self.0.borrow_mut().insert(name.to_owned());
        None
    }

    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

#[test]
fn every_setting_that_is_read_is_in_the_table_and_every_served_one_is_read() {
    let asked = Asked::default();
    let mut reader = crate::config::Reader {
        source: &asked,
        mistakes: Vec::new(),
        notices: Vec::new(),
    };
    drop(reader.configuration());
    let asked = asked.0.into_inner();
    let served = |known: &known::Known| known.standings.contains(&Standing::Served);
    let table: BTreeSet<_> = known::OF_AWS_VPC_CNI
        .iter()
        .filter(|known| served(known))
        .map(|known| known.name)
        .chain(known::OWN)
        .collect();
    let read: BTreeSet<_> = asked
        .iter()
        .map(String::as_str)
        .filter(|name| !name.starts_with("OTEL_"))
        // The small letters are the other spelling; the endpoint is the AWS SDK's own variable.
        .filter(|name| !name.ends_with("_proxy") && *name != "AWS_EC2_METADATA_SERVICE_ENDPOINT")
        .collect();
    let lost: Vec<_> = table.symmetric_difference(&read).collect();
    assert!(
        lost.is_empty(),
        "read or in the table, and not both: {lost:?}"
    );
}

/// The page's rows: name, standing, text.
fn page() -> Vec<(String, String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/settings.md");
    let text = fs::read_to_string(path).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [name, standing, text] = cells[..] else {
            panic!("not three cells: {row}");
        };
        let name = name.trim_matches('`');
        (name.to_owned(), standing.to_owned(), text.to_owned())
    })
    .collect()
}

fn row(name: &str, standing: Standing) -> (String, String, String) {
    let (word, text) = match standing {
        Standing::Served => ("served".to_owned(), ""),
        Standing::NoEffect(text) => ("no effect".to_owned(), text),
        Standing::NotServed(on, text) | Standing::NotServedStock(on, text) => {
            (format!("not served: {}", asks(on)), text)
        }
        Standing::Refused(on, text) => (format!("refused: {}", asks(on)), text),
    };
    (name.to_owned(), word, text.to_owned())
}

fn asks(on: known::On) -> String {
    match on {
        known::On::True => "true".to_owned(),
        known::On::Value(value) => value.to_owned(),
        known::On::Any => "any value".to_owned(),
    }
}

#[test]
fn the_page_has_every_setting_and_no_other() {
    let own = known::OWN.map(|name| row(name, Standing::Served));
    let mut wanted: Vec<_> = own.to_vec();
    for known in &known::OF_AWS_VPC_CNI {
        wanted.extend(
            known
                .standings
                .iter()
                .map(|standing| row(known.name, *standing)),
        );
    }
    wanted.sort();
    let mut page = page();
    page.sort();
    let missing: Vec<_> = wanted.iter().filter(|row| !page.contains(row)).collect();
    let beyond: Vec<_> = page.iter().filter(|row| !wanted.contains(row)).collect();
    assert!(
        missing.is_empty() && beyond.is_empty(),
        "not on the page: {missing:#?}\nnot in the code: {beyond:#?}"
    );
}
