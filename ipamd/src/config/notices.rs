//! What an operator must be told about the settings of a daemon that starts all the same: values that were not understood,
//! settings of the AWS VPC CNI that are not served, and names that nobody knows.
//!
//! Knows the tables of [`super::known`] and no setting's meaning.

use std::collections::BTreeMap;

use planner::Family;

use super::{
    Config, Strings,
    known::{self, Standing},
};

/// One thing to be told about a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NAME=value`.
    pub setting: String,
    pub kind: Kind,
    /// What was expected, or what happens instead.
    pub text: String,
}

/// Why a setting has no effect, or not the one that was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its value is not understood: the default is in force.
    Ignored,
    /// It asks for what is not served.
    NotServed,
    /// The same with a value of the AWS VPC CNI's own manifest.
    NotServedStock,
    /// Nobody reads a setting of this name.
    Unknown,
}

impl Kind {
    pub const ALL: [Self; 4] = [
        Self::Ignored,
        Self::NotServed,
        Self::NotServedStock,
        Self::Unknown,
    ];

    /// For metrics and log lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ignored => "ignored",
            Self::NotServed => "not_served",
            Self::NotServedStock => "not_served_stock",
            Self::Unknown => "unknown",
        }
    }
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { setting, text, .. } = self;
        match self.kind {
            Kind::Ignored => write!(f, "{setting} is ignored: expected {text}"),
            Kind::NotServed | Kind::NotServedStock => {
                write!(f, "{setting} is not served: {text}")
            }
            Kind::Unknown => write!(f, "{setting} is not known: {text}"),
        }
    }
}

/// Longest value that is shown: a list may have thousands of characters.
const SHOWN: usize = 200;

/// A setting as it is shown to people. Values that may hold a secret are not.
#[must_use]
pub fn shown(name: &str, value: &str) -> String {
    let mut value = match name {
        // Tags may carry anything.
        "ADDITIONAL_ENI_TAGS" => "(not shown)".to_owned(),
        // Tokens of a collector.
        _ if name.ends_with("_HEADERS") => "(not shown)".to_owned(),
        // A proxy's password is in its URL.
        _ if name.to_ascii_uppercase().ends_with("_PROXY") => without_userinfo(value),
        _ => value.to_owned(),
    };
    if value.len() > SHOWN {
        value.truncate(value.floor_char_boundary(SHOWN));
        value.push('…');
    }
    value
}

fn without_userinfo(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    match rest.rsplit_once('@') {
        Some((_, host)) if scheme.is_empty() => format!("…@{host}"),
        Some((_, host)) => format!("{scheme}://…@{host}"),
        None => url.to_owned(),
    }
}

/// The settings of the AWS VPC CNI whose values ask for what is not served: to be told, and to refuse.
pub(super) fn not_served(source: &dyn Strings, family: Family) -> (Vec<Notice>, Vec<String>) {
    let (mut notices, mut refused) = (Vec::new(), Vec::new());
    for known in &known::OF_AWS_VPC_CNI {
        let value = source.get(known.name).unwrap_or_default();
        let setting = format!("{}={}", known.name, shown(known.name, value.trim()));
        let (kind, text) = match known.judge(value.trim(), family) {
            None | Some(Standing::Served | Standing::NoEffect(_)) => continue,
            Some(Standing::NotServed(_, text)) => (Kind::NotServed, text),
            Some(Standing::NotServedStock(_, text)) => (Kind::NotServedStock, text),
            Some(Standing::Refused(_, text)) => {
                refused.push(format!("{setting}: not served: {text}"));
                continue;
            }
        };
        notices.push(Notice {
            setting,
            kind,
            text: text.to_owned(),
        });
    }
    (notices, refused)
}

/// Prefixes that nobody else uses: a name that begins so was meant for us.
const OURS: [&str; 2] = ["HAWSER_", "AWS_VPC_"];

/// Names that were meant for us and are none, each with the nearest one.
pub(super) fn unknown(source: &dyn Strings) -> Vec<Notice> {
    let known: Vec<&str> = known::OF_AWS_VPC_CNI
        .iter()
        .map(|known| known.name)
        .chain(known::OWN)
        .collect();
    let mut notices = Vec::new();
    for name in source.names() {
        if known.contains(&name.as_str()) {
            continue;
        }
        let value = source.get(&name).unwrap_or_default();
        if is_service_link(&name, &value) {
            continue;
        }
        let nearest = known
            .iter()
            .map(|known| (strsim::osa_distance(&name, known), *known))
            .min();
        let ours = OURS.iter().any(|prefix| name.starts_with(prefix));
        let text = match nearest {
            // A third of the letters: beyond that the names have nothing to do with each other.
            Some((distance, nearest)) if ours && distance * 3 <= name.len() => {
                format!("did you mean {nearest}?")
            }
            Some((1 | 2, nearest)) => format!("did you mean {nearest}?"),
            _ if ours => "docs/settings.md lists all that are".to_owned(),
            _ => continue,
        };
        let setting = format!("{name}={}", shown(&name, &value));
        notices.push(Notice {
            setting,
            kind: Kind::Unknown,
            text,
        });
    }
    notices
}

/// What kubelet sets for each Service of the pod's namespace: one that is called `hawser-metrics` gives
/// `HAWSER_METRICS_SERVICE_HOST`, `HAWSER_METRICS_PORT=tcp://…` and more.
fn is_service_link(name: &str, value: &str) -> bool {
    let after_port = name.split("_PORT_").nth(1);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || after_port.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The settings without which the configuration would be another one, as they were written.
#[must_use]
pub fn differing(source: &dyn Strings) -> BTreeMap<String, String> {
    let full = Config::read(source).ok();
    let names = source.names().into_iter();
    names
        .filter(|name| {
            let without = Config::read(&Without { source, name }).ok();
            without.map(Config::effects) != full.clone().map(Config::effects)
        })
        .filter_map(|name| {
            let value = source.get(&name)?;
            let value = shown(&name, &value);
            Some((name, value))
        })
        .collect()
}

/// A source without one of its settings.
struct Without<'a> {
    source: &'a dyn Strings,
    name: &'a str,
}

impl Strings for Without<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (name != self.name).then(|| self.source.get(name))?
    }

    fn names(&self) -> Vec<String> {
        let mut names = self.source.names();
        names.retain(|name| name != self.name);
        names
    }
}

impl Config {
    /// Without what is only told.
    fn effects(mut self) -> Self {
        self.notices.clear();
        self
    }
}

#[cfg(test)]
mod tests;
