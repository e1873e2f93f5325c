//! Reports settings that do not prevent the start: invalid values, settings of the AWS VPC CNI that are not served, and
//! unknown names.
//!
//! Uses the tables of [`super::known`]. Must not know the meaning of single settings.

use std::collections::BTreeMap;

use super::{
    Config, Strings,
    known::{self, Standing},
};

/// A notice about a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// `NAME=value`.
    pub setting: String,
    pub kind: Kind,
    /// What was expected, or what happens instead.
    pub text: String,
}

/// Why a setting does not have the requested effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Its value is invalid, and the default is used.
    Ignored,
    /// It requests something that is not served.
    NotServed,
    /// The same with a value of the AWS VPC CNI's default manifest.
    NotServedStock,
    /// There is no setting with this name.
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

/// The longest value that is shown. A list may have thousands of characters.
const SHOWN: usize = 200;

/// Formats a setting's value for output. Values that may contain a secret are not shown.
#[must_use]
pub fn shown(name: &str, value: &str) -> String {
    let mut value = match name {
        // Tags may contain anything.
        "ADDITIONAL_ENI_TAGS" => "(not shown)".to_owned(),
        // They may contain tokens for a collector.
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

/// Returns the settings of the AWS VPC CNI whose values are not served: first those to report, then those to refuse.
pub(super) fn not_served(source: &dyn Strings) -> (Vec<Notice>, Vec<String>) {
    let (mut notices, mut refused) = (Vec::new(), Vec::new());
    for known in &known::OF_AWS_VPC_CNI {
        let value = source.get(known.name).unwrap_or_default();
        let setting = format!("{}={}", known.name, shown(known.name, value.trim()));
        let (kind, text) = match known.judge(value.trim()) {
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

/// Prefixes that only the AWS VPC CNI and Hawser use.
const OURS: [&str; 2] = ["HAWSER_", "AWS_VPC_"];

/// Returns a notice for each name that looks like a setting and is none, with the most similar name.
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
            // If more than a third of the letters differ, the names are unrelated.
            Some((distance, nearest)) if ours && distance * 3 <= name.len() => {
                format!("did you mean {nearest}?")
            }
            Some((1 | 2, nearest)) => format!("did you mean {nearest}?"),
            _ if ours => "docs/settings.md lists all settings".to_owned(),
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

/// Whether kubelet sets this variable for a Service of the pod's namespace. For a Service `hawser-metrics`, kubelet sets
/// `HAWSER_METRICS_SERVICE_HOST`, `HAWSER_METRICS_PORT=tcp://…` and more.
fn is_service_link(name: &str, value: &str) -> bool {
    let after_port = name.split("_PORT_").nth(1);
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || after_port.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// Returns the settings that change the configuration, with the values that were set.
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
    /// Removes the notices, which have no effect.
    fn effects(mut self) -> Self {
        self.notices.clear();
        self
    }
}

#[cfg(test)]
mod tests;
