//! The support archive: what remote support needs to see, without secrets.
//!
//! Pods' names and namespaces are replaced by numbers, values of sensitive keys are blanked, and only the daemon's own
//! settings are included from the environment. Everything is collected in memory and written once.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use datapath::{
    netlink::{Family, Socket},
    nft::Nft,
};
use flate2::{Compression, write::GzEncoder};
use proto::error_chain::chain;
use serde_json::{Value, json};

use super::{Places, Report};
use crate::{
    config::{Config, Strings, notices},
    rpc::view::View,
    runtime::clock,
};

/// A key with a sensitive value, from any program.
const SECRETS: [&str; 7] = [
    "token",
    "secret",
    "password",
    "key",
    "auth",
    "credential",
    "cert",
];

/// One file of the archive.
type Entry = (&'static str, String);

/// Writes the archive to `path`, readable only for its owner.
///
/// # Errors
/// The error of the file system.
pub fn write(
    path: &Path,
    report: &Report,
    places: &Places,
    source: &dyn Strings,
) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in entries(report, places, source) {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(text.len()).unwrap_or(u64::MAX));
        header.set_mode(0o600);
        header.set_mtime(u64::try_from(clock::wall_seconds()).unwrap_or(0));
        header.set_cksum();
        archive.append_data(&mut header, format!("hawser/{name}"), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

fn entries(report: &Report, places: &Places, source: &dyn Strings) -> Vec<Entry> {
    let mut entries = vec![
        (
            "version.txt",
            format!(
                "ipamd {}, {}\n",
                env!("CARGO_PKG_VERSION"),
                clock::wall_rfc3339()
            ),
        ),
        ("settings.txt", settings(source)),
        ("conflists.txt", conflists(places)),
        ("nftables.txt", nftables()),
    ];
    entries.extend(network());
    let mut names = Names::default();
    let view = report.view.clone().map(|view| names.hide(view));
    entries.push(("node.json", pretty(&json!(view))));
    // After the view, which contains the pods' names that the findings quote.
    let report = serde_json::to_value(report).unwrap_or_default();
    entries.push(("report.json", names.replace(&pretty(&report))));
    entries
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

/// The source of the daemon's settings, which records what is read. The list is therefore complete and contains nothing
/// else.
struct Noted<'a> {
    source: &'a dyn Strings,
    set: RefCell<BTreeMap<String, String>>,
}

impl Strings for Noted<'_> {
    fn get(&self, name: &str) -> Option<String> {
        let value = self.source.get(name)?;
        let shown = notices::shown(name, &value);
        self.set.borrow_mut().insert(name.to_owned(), shown);
        Some(value)
    }

    /// None: what is not a setting is not looked at, since it may be a secret.
    fn names(&self) -> Vec<String> {
        Vec::new()
    }
}

fn settings(source: &dyn Strings) -> String {
    let noted = Noted {
        source,
        set: RefCell::default(),
    };
    let read = Config::read(&noted);
    let mistakes = read.err().map(|mistakes| format!("{mistakes}\n"));
    let set = noted.set.into_inner();
    let lines = set.iter().map(|(name, value)| format!("{name}={value}\n"));
    lines.chain(mistakes).collect()
}

fn conflists(places: &Places) -> String {
    let directory = places.host(&places.cni_conf_dir);
    let mut text = String::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let content = fs::read_to_string(entry.path()).unwrap_or_default();
        let shown = match serde_json::from_str::<Value>(&content) {
            Ok(value) => pretty(&blank(value)),
            Err(error) => format!("{} bytes of invalid JSON: {error}\n", content.len()),
        };
        text.push_str(&format!("== {}\n{shown}", entry.file_name().display()));
    }
    text
}

fn blank(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| {
                    let low = key.to_lowercase();
                    let secret = SECRETS.iter().any(|word| low.contains(word));
                    let value = if secret {
                        json!("(removed)")
                    } else {
                        blank(value)
                    };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(blank).collect()),
        other => other,
    }
}

fn nftables() -> String {
    let listed = match Nft::open().and_then(|mut nft| nft.list()) {
        Ok(listed) => listed,
        Err(error) => return format!("{}\n", chain(&error)),
    };
    listed.iter().map(|object| format!("{object}\n")).collect()
}

fn network() -> Vec<Entry> {
    let mut socket = match Socket::open() {
        Ok(socket) => socket,
        Err(error) => return vec![("network.txt", chain(&error))],
    };
    let list = |found: Result<Vec<String>, datapath::netlink::Error>| match found {
        Ok(lines) => lines.iter().map(|line| format!("{line}\n")).collect(),
        Err(error) => format!("{}\n", chain(&error)),
    };
    let debug = |thing: &dyn std::fmt::Debug| format!("{thing:?}");
    let links = socket
        .links()
        .map(|all| all.iter().map(|l| debug(l)).collect());
    let mut entries = vec![("links.txt", list(links))];
    for (family, rules, routes) in [
        (Family::V4, "rules4.txt", "routes4.txt"),
        (Family::V6, "rules6.txt", "routes6.txt"),
    ] {
        let found = socket.rules(family);
        entries.push((
            rules,
            list(found.map(|all| all.iter().map(|r| debug(r)).collect())),
        ));
        let found = socket.routes(family, None);
        entries.push((
            routes,
            list(found.map(|all| all.iter().map(|r| debug(r)).collect())),
        ));
    }
    entries
}

/// Pods' names and their replacements.
#[derive(Debug, Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn stand_in(&mut self, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        let next = self.0.len() + 1;
        self.0
            .entry(name.to_owned())
            .or_insert_with(|| format!("pod-{next}"))
            .clone()
    }

    fn hide(&mut self, mut view: View) -> View {
        for waiting in &mut view.waiting {
            waiting.pod = self.stand_in(&waiting.pod);
        }
        for address in view.enis.iter_mut().flat_map(|eni| &mut eni.addresses) {
            address.pod = self.stand_in(&address.pod);
        }
        view
    }

    /// The longest names first, because one may be the beginning of another.
    fn replace(&self, text: &str) -> String {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        all.iter().fold(text.to_owned(), |text, (name, stand_in)| {
            text.replace(name.as_str(), stand_in)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_blanked_at_any_depth() {
        let value =
            json!({"plugins": [{"type": "x", "authToken": "t", "ipam": {"etcd_key_file": "k"}}]});
        let text = blank(value).to_string();
        assert!(
            !text.contains("\"t\"") && !text.contains("\"k\"") && text.contains("\"x\""),
            "{text}"
        );
    }

    #[test]
    fn names_are_replaced_the_longest_first() {
        let mut names = Names::default();
        assert_eq!(names.stand_in("a/b"), "pod-1");
        assert_eq!(names.stand_in("a/b-c"), "pod-2");
        assert_eq!(names.stand_in("a/b"), "pod-1");
        assert_eq!(names.replace("a/b-c and a/b"), "pod-2 and pod-1");
    }

    #[test]
    fn settings_are_a_closed_list() {
        let source = BTreeMap::from([
            ("WARM_IP_TARGET", "5"),
            ("AWS_SECRET_ACCESS_KEY", "hidden"),
            ("ADDITIONAL_ENI_TAGS", "{\"owner\":\"somebody\"}"),
        ]);
        assert_eq!(
            settings(&source),
            "ADDITIONAL_ENI_TAGS=(not shown)\nWARM_IP_TARGET=5\n"
        );
    }
}
