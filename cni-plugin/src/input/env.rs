//! Owns the reading of `CNI_*` variables. No other variable is read, because the runtime passes its whole environment.

use std::ffi::OsString;
use std::time::Duration;

use proto::names::{ContainerId, IfName, NameError, NetworkName, PodIdentity, PodText, SandboxKey};
use proto::tombstone::DEL_LIMIT;

use crate::error::{Failure, code};
use crate::version::Version;

/// The maximum length of `CNI_ARGS` in bytes; Kubernetes uses about 500.
const ARGS_MAX: usize = 16 * 1024;

/// The verb of the call. Each has one row in [`VERBS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Add,
    Del,
    Check,
    Status,
    Gc,
    Version,
}

struct Row {
    name: &'static str,
    verb: Verb,
    /// Variables that must be set and not empty.
    required: &'static [&'static str],
    /// The first protocol version that has the verb.
    since: Version,
    /// Shorter than the deadlines of all callers: the kubelet allows 4 minutes for a sandbox, containerd's deferred
    /// clean-up 1 minute, and STATUS has no deadline in containerd while it blocks every other call.
    deadline: Duration,
}

const CONTAINER: &str = "CNI_CONTAINERID";
const NETNS: &str = "CNI_NETNS";
const IFNAME: &str = "CNI_IFNAME";
const PATH: &str = "CNI_PATH";
const ARGS: &str = "CNI_ARGS";
const OVERRIDE: &str = "CNI_NETNS_OVERRIDE";

const VERBS: [Row; 6] = [
    Row {
        name: "ADD",
        verb: Verb::Add,
        required: &[CONTAINER, NETNS, IFNAME, PATH],
        since: Version::V0_3_0,
        deadline: Duration::from_secs(60),
    },
    Row {
        name: "DEL",
        verb: Verb::Del,
        required: &[CONTAINER, IFNAME, PATH],
        since: Version::V0_3_0,
        deadline: DEL_LIMIT,
    },
    Row {
        name: "CHECK",
        verb: Verb::Check,
        required: &[CONTAINER, NETNS, IFNAME, PATH],
        since: Version::V0_4_0,
        deadline: Duration::from_secs(30),
    },
    Row {
        name: "STATUS",
        verb: Verb::Status,
        required: &[PATH],
        since: Version::V1_1_0,
        deadline: Duration::from_secs(1),
    },
    Row {
        name: "GC",
        verb: Verb::Gc,
        required: &[PATH],
        since: Version::V1_1_0,
        deadline: Duration::from_secs(30),
    },
    Row {
        name: "VERSION",
        verb: Verb::Version,
        required: &[],
        since: Version::V0_3_0,
        deadline: Duration::ZERO,
    },
];

impl Verb {
    fn row(self) -> &'static Row {
        VERBS
            .iter()
            .find(|row| row.verb == self)
            .expect("the table has a row for every verb, as a test checks")
    }

    /// The value of `CNI_COMMAND`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The first protocol version that has the verb.
    pub fn since(self) -> Version {
        self.row().since
    }

    /// The maximum time for an answer.
    pub fn deadline(self) -> Duration {
        self.row().deadline
    }
}

/// What is wrong with the environment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("CNI_COMMAND is {found:?}; expected ADD, DEL, CHECK, STATUS, GC or VERSION")]
    UnknownCommand { found: String },
    #[error("{verb} needs {}, which the runtime did not set", missing.join(", "))]
    Missing {
        verb: &'static str,
        missing: Vec<&'static str>,
    },
    #[error("{name} is not UTF-8")]
    NotUtf8 { name: &'static str },
    #[error("{name} is malformed")]
    Name {
        name: &'static str,
        source: NameError,
    },
    #[error("CNI_ARGS has {len} bytes, more than {ARGS_MAX}")]
    ArgsTooLong { len: usize },
    #[error("CNI_ARGS has {found:?} where KEY=VALUE was expected")]
    ArgsPair { found: String },
    #[error("CNI_ARGS has {key} twice")]
    ArgsTwice { key: String },
    #[error("CNI_ARGS has unknown keys without IgnoreUnknown=1: {}", keys.join(", "))]
    ArgsUnknown { keys: Vec<String> },
}

const REMEDY: &str = "the container runtime sets this variable: check which runtime calls the plugin, and its log; trying again does not help";

impl From<EnvError> for Failure {
    fn from(error: EnvError) -> Self {
        Self::new(code::ENVIRONMENT, &error, REMEDY)
    }
}

/// The variables, from any source.
#[derive(Debug)]
pub struct Variables<F>(pub F);

impl<F: Fn(&str) -> Option<OsString>> Variables<F> {
    /// By the CNI specification, an absent and an empty variable are the same.
    fn get(&self, name: &'static str) -> Result<Option<String>, EnvError> {
        match (self.0)(name) {
            Some(value) if !value.is_empty() => value
                .into_string()
                .map(Some)
                .map_err(|_| EnvError::NotUtf8 { name }),
            _ => Ok(None),
        }
    }

    /// The verb; `None` if the plugin is not called by a runtime.
    pub fn verb(&self) -> Result<Option<Verb>, EnvError> {
        let Some(found) = self.get("CNI_COMMAND")? else {
            return Ok(None);
        };
        match VERBS.iter().find(|row| row.name == found) {
            Some(row) => Ok(Some(row.verb)),
            None => Err(EnvError::UnknownCommand { found }),
        }
    }

    /// Reports all missing variables that `verb` needs, at once.
    pub fn require(&self, verb: Verb) -> Result<(), EnvError> {
        let mut missing = Vec::new();
        for name in verb.row().required.iter().copied() {
            if self.get(name)?.is_none() {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let verb = verb.name();
        Err(EnvError::Missing { verb, missing })
    }

    /// The attachment for ADD, DEL and CHECK.
    pub fn attachment(&self) -> Result<Attachment, EnvError> {
        Ok(Attachment {
            container_id: self.name(CONTAINER)?,
            ifname: self.name(IFNAME)?,
            netns: self.get(NETNS)?,
            netns_override: self
                .get(OVERRIDE)?
                .is_some_and(|value| is_true(value.trim())),
        })
    }

    fn name<T>(&self, name: &'static str) -> Result<T, EnvError>
    where
        T: for<'a> TryFrom<&'a str, Error = NameError>,
    {
        let text = self.get(name)?.unwrap_or_default();
        T::try_from(&text).map_err(|source| EnvError::Name { name, source })
    }

    /// The pod, from `CNI_ARGS`.
    pub fn pod(&self) -> Result<PodIdentity, EnvError> {
        match self.get(ARGS)? {
            Some(text) => parse_args(&text),
            None => Ok(PodIdentity::default()),
        }
    }
}

fn is_true(text: &str) -> bool {
    text == "1" || text.eq_ignore_ascii_case("true")
}

/// The attachment from the environment; the network's name is in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    pub container_id: ContainerId,
    pub ifname: IfName,
    /// `CNI_NETNS`; optional for DEL.
    pub netns: Option<String>,
    /// Whether the runtime states that the plugin's own namespace is intended.
    pub netns_override: bool,
}

impl Attachment {
    /// The key under which the daemon knows it.
    pub fn key(&self, network: &NetworkName) -> SandboxKey {
        SandboxKey {
            network: network.clone(),
            container_id: self.container_id.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

const POD_NAMESPACE: &str = "K8S_POD_NAMESPACE";
const POD_NAME: &str = "K8S_POD_NAME";
const POD_UID: &str = "K8S_POD_UID";

/// Parses `KEY=VALUE;KEY=VALUE`. Kubernetes' keys are in random order, because containerd keeps them in a map.
fn parse_args(text: &str) -> Result<PodIdentity, EnvError> {
    if text.len() > ARGS_MAX {
        return Err(EnvError::ArgsTooLong { len: text.len() });
    }
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for pair in text.split(';') {
        let (key, value) = split_pair(pair)?;
        if pairs.iter().any(|(other, _)| *other == key) {
            let key = excerpt(key);
            return Err(EnvError::ArgsTwice { key });
        }
        pairs.push((key, value));
    }
    let value = |key| pairs.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v);
    if !is_true(value("IgnoreUnknown")) {
        refuse_unknown(&pairs)?;
    }
    Ok(PodIdentity {
        namespace: PodText::new(value(POD_NAMESPACE)),
        name: PodText::new(value(POD_NAME)),
        uid: PodText::new(value(POD_UID)),
    })
}

fn split_pair(pair: &str) -> Result<(&str, &str), EnvError> {
    match pair.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.contains('=') => Ok((key, value)),
        _ => Err(EnvError::ArgsPair {
            found: excerpt(pair),
        }),
    }
}

fn refuse_unknown(pairs: &[(&str, &str)]) -> Result<(), EnvError> {
    let known = [
        "IgnoreUnknown",
        "K8S_POD_INFRA_CONTAINER_ID",
        POD_NAMESPACE,
        POD_NAME,
        POD_UID,
    ];
    let unknown = pairs.iter().filter(|(key, _)| !known.contains(key));
    let keys: Vec<String> = unknown.map(|(key, _)| excerpt(key)).take(8).collect();
    if keys.is_empty() {
        Ok(())
    } else {
        Err(EnvError::ArgsUnknown { keys })
    }
}

/// Untrusted text for an error message.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests;
