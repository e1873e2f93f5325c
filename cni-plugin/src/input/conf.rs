//! Owns the network configuration on stdin: bounded reading, the keys that this plugin knows, and their rules. Other
//! keys (`type`, `disableCheck`…) are ignored.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use proto::names::{MTU_MAX, MTU_MIN, NameError, NetworkName, VethPrefix};
use serde_json::{Map, Value};

use super::json;
use crate::error::{Failure, code};
use crate::input::env::Verb;
use crate::version::{self, Version};

/// The maximum size of the configuration in bytes, including `prevResult` and the pod's annotations.
const SIZE_MAX: u64 = 1024 * 1024;
/// The default socket of the daemon.
const SOCKET: &str = "/run/hawser/ipamd.sock";

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfError {
    #[error("cannot read the network configuration from stdin")]
    Read { source: std::io::Error },
    #[error("the network configuration has more than {SIZE_MAX} bytes")]
    TooLarge,
    #[error("the network configuration on stdin is not JSON")]
    NotJson { source: serde_json::Error },
    #[error("the network configuration is {found} where an object was expected")]
    NotAnObject { found: &'static str },
    #[error("{key} is {found} where {want} was expected")]
    Type {
        key: &'static str,
        found: &'static str,
        want: &'static str,
    },
    #[error(
        "cniVersion {found:?} is not supported; the supported versions are {}",
        version::supported().join(", ")
    )]
    Version { found: String },
    #[error("{verb} does not exist in cniVersion {found}; it needs {since} or later")]
    VerbTooNew {
        verb: &'static str,
        found: &'static str,
        since: &'static str,
    },
    #[error("the network configuration has no name")]
    NoName,
    #[error("{key} is malformed")]
    Name {
        key: &'static str,
        source: NameError,
    },
    #[error("mtu is {found} where a number from {MTU_MIN} to {MTU_MAX} was expected")]
    Mtu { found: String },
    #[error("deadlineSeconds is {found} where a number above zero was expected")]
    Deadline { found: String },
    #[error("socket is {found:?} where an absolute path was expected")]
    Socket { found: String },
    #[error("{verb} needs {key}, which is missing in the network configuration")]
    Absent {
        verb: &'static str,
        key: &'static str,
    },
    #[error("{key} has an entry without a string {field}")]
    Entry {
        key: &'static str,
        field: &'static str,
    },
    #[error("prevResult has no address on {ifname}")]
    NoAddress { ifname: String },
}

impl ConfError {
    fn code(&self) -> u32 {
        match self {
            Self::Read { .. } => code::IO,
            Self::TooLarge
            | Self::NotJson { .. }
            | Self::NotAnObject { .. }
            | Self::Type { .. } => code::DECODE,
            Self::Version { .. } | Self::VerbTooNew { .. } => code::INCOMPATIBLE_VERSION,
            Self::NoName
            | Self::Name { .. }
            | Self::Mtu { .. }
            | Self::Deadline { .. }
            | Self::Socket { .. }
            | Self::Absent { .. }
            | Self::Entry { .. }
            | Self::NoAddress { .. } => code::CONFIG,
        }
    }
}

impl From<ConfError> for Failure {
    fn from(error: ConfError) -> Self {
        let remedy = match &error {
            ConfError::Read { .. } => "no action needed: the runtime tries again",
            ConfError::Version { .. } | ConfError::VerbTooNew { .. } => {
                "set a supported cniVersion in the network configuration, or use another runtime"
            }
            ConfError::Absent { .. } | ConfError::Entry { .. } | ConfError::NoAddress { .. } => {
                "the container runtime adds this key: check which runtime calls the plugin, and its log"
            }
            _ => {
                "correct the network configuration; ipamd writes 10-aws.conflist again when it starts"
            }
        };
        Self::new(error.code(), &error, remedy)
    }
}

/// The part of the configuration that every verb needs. Other keys are read by the verb that needs them, so that a key
/// that only ADD uses never prevents a DEL.
#[derive(Debug, Clone)]
pub struct Conf {
    pub version: Version,
    pub name: NetworkName,
    /// The daemon's socket.
    pub socket: PathBuf,
    /// Reduces the deadlines of the verbs; never extends them.
    deadline: Option<Duration>,
    object: Map<String, Value>,
}

impl Conf {
    /// Reads and checks stdin for `verb`.
    pub fn read(stdin: impl Read, verb: Verb) -> Result<Self, ConfError> {
        let object = object(&bounded(stdin)?)?;
        let name = match text(&object, "name")? {
            None | Some("") => return Err(ConfError::NoName),
            Some(name) => NetworkName::try_from(name).map_err(|source| ConfError::Name {
                key: "name",
                source,
            })?,
        };
        let version = match version_of(&object) {
            Ok(version) => version,
            // DEL answers nothing that has a version, and an address must not stay taken over a text that its pod's
            // runtime cannot change.
            Err(_) if verb == Verb::Del => Version::LATEST,
            Err(error) => return Err(error),
        };
        if version < verb.since() {
            return Err(ConfError::VerbTooNew {
                verb: verb.name(),
                found: version.as_str(),
                since: verb.since().as_str(),
            });
        }
        Ok(Self {
            version,
            name,
            socket: socket(&object)?,
            deadline: deadline(&object)?,
            object,
        })
    }

    /// The deadline of `verb` with this configuration.
    pub fn deadline(&self, verb: Verb) -> Duration {
        self.deadline
            .map_or(verb.deadline(), |own| own.min(verb.deadline()))
    }

    /// The result of the previous plugins in the chain; JSON's `null` means absent.
    pub fn prev_result(&self) -> Result<Option<&Map<String, Value>>, ConfError> {
        match self.object.get("prevResult") {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(result)) => Ok(Some(result)),
            Some(other) => Err(ConfError::Type {
                key: "prevResult",
                found: kind(other),
                want: "an object",
            }),
        }
    }

    /// A key of the configuration, unparsed.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key)
    }

    /// Whether pods get IPv6 addresses, which must be enabled in their namespaces.
    pub fn ipv6(&self) -> Result<bool, ConfError> {
        match self.object.get("ipv6") {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(wanted)) => Ok(*wanted),
            Some(other) => Err(ConfError::Type {
                key: "ipv6",
                found: kind(other),
                want: "a boolean",
            }),
        }
    }

    /// The settings for the pod's link in ADD.
    pub fn link(&self) -> Result<LinkConf, ConfError> {
        let veth_prefix = match text(&self.object, "vethPrefix")? {
            None | Some("") => None,
            Some(prefix) => {
                let key = "vethPrefix";
                let prefix = VethPrefix::try_from(prefix);
                Some(prefix.map_err(|source| ConfError::Name { key, source })?)
            }
        };
        let mtu = mtu(self.object.get("mtu"))?;
        Ok(LinkConf { veth_prefix, mtu })
    }
}

/// Settings of a pod's link; the daemon's own setting is used if one is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkConf {
    pub veth_prefix: Option<VethPrefix>,
    pub mtu: Option<u32>,
}

/// The version that a VERSION caller sent, if it is supported.
pub fn asked_version(stdin: impl Read) -> Option<Version> {
    let object = object(&bounded(stdin).ok()?).ok()?;
    version_of(&object).ok()
}

fn bounded(stdin: impl Read) -> Result<Vec<u8>, ConfError> {
    let mut bytes = Vec::with_capacity(4096);
    stdin
        .take(SIZE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| ConfError::Read { source })?;
    match u64::try_from(bytes.len()) {
        Ok(len) if len <= SIZE_MAX => Ok(bytes),
        _ => Err(ConfError::TooLarge),
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>, ConfError> {
    match json::parse(bytes).map_err(|source| ConfError::NotJson { source })? {
        Value::Object(object) => Ok(object),
        other => Err(ConfError::NotAnObject {
            found: kind(&other),
        }),
    }
}

/// By the specification, an absent version means 0.1.0.
fn version_of(object: &Map<String, Value>) -> Result<Version, ConfError> {
    let found = match text(object, "cniVersion")? {
        None | Some("") => "0.1.0",
        Some(found) => found,
    };
    Version::parse(found).ok_or_else(|| ConfError::Version {
        found: found.chars().take(64).collect(),
    })
}

fn socket(object: &Map<String, Value>) -> Result<PathBuf, ConfError> {
    match text(object, "socket")? {
        None => Ok(SOCKET.into()),
        Some(path) if path.starts_with('/') => Ok(path.into()),
        Some(path) => Err(ConfError::Socket {
            found: path.chars().take(128).collect(),
        }),
    }
}

fn deadline(object: &Map<String, Value>) -> Result<Option<Duration>, ConfError> {
    let Some(value) = object.get("deadlineSeconds") else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|seconds| *seconds > 0.0);
    match seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
        Some(deadline) => Ok(Some(deadline)),
        None => Err(ConfError::Deadline {
            found: shorten(value),
        }),
    }
}

/// The AWS VPC CNI's template writes the MTU as a string, humans write a number. The template writes an empty string
/// for an unset variable.
fn mtu(value: Option<&Value>) -> Result<Option<u32>, ConfError> {
    let number = match value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        // `parse` alone is not enough: it accepts "+1500".
        Some(Value::String(text)) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    match number.and_then(|number: u64| u32::try_from(number).ok()) {
        Some(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => Ok(Some(mtu)),
        _ => Err(ConfError::Mtu {
            found: value.map(shorten).unwrap_or_default(),
        }),
    }
}

fn shorten(value: &Value) -> String {
    value.to_string().chars().take(64).collect()
}

fn text<'a>(
    object: &'a Map<String, Value>,
    key: &'static str,
) -> Result<Option<&'a str>, ConfError> {
    match object.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(ConfError::Type {
            key,
            found: kind(other),
            want: "a string",
        }),
    }
}

/// The kind of a value, for an error message.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests;
