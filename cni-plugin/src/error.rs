//! Owns the error that is returned to the runtime: code, message, details. Every module's own error is converted into
//! it.

use std::error::Error;

use proto::{
    error_chain::chain,
    refusal::{Refusal, safe_text},
};
use serde_json::{Value, json};

use crate::version::Version;

/// The CNI specification's error codes that the plugin itself uses; the others are in `proto::refusal`'s table.
pub mod code {
    /// The protocol version is not supported, or does not have this verb.
    pub const INCOMPATIBLE_VERSION: u32 = 1;
    /// A `CNI_*` variable is missing or malformed.
    pub const ENVIRONMENT: u32 = 4;
    /// Reading or writing failed.
    pub const IO: u32 = 5;
    /// The configuration is not JSON of the expected form.
    pub const DECODE: u32 = 6;
    /// The configuration is valid JSON but has an invalid value.
    pub const CONFIG: u32 = 7;
    /// The network namespace is not valid.
    pub const NETNS: u32 = 8;
    /// The same call may succeed later.
    pub const TRY_AGAIN: u32 = 11;
    /// STATUS: an ADD would fail.
    pub const NOT_AVAILABLE: u32 = 50;
    /// A defect of this plugin.
    pub const INTERNAL: u32 = 999;
}

/// A failed call, with the fields of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// See [`code`].
    pub code: u32,
    /// What went wrong, with operands.
    pub msg: String,
    /// The remedy; may be empty.
    pub details: String,
}

impl Failure {
    /// A failure from an error: its message and the messages of its causes, each once.
    pub fn new(code: u32, error: &dyn Error, details: &str) -> Self {
        Self {
            code,
            // Runtimes search error texts for certain words; see [`safe_text`].
            msg: safe_text(&chain(error)),
            details: safe_text(details),
        }
    }

    /// The same failure under another code.
    pub fn with_code(self, code: u32) -> Self {
        Self { code, ..self }
    }

    /// The JSON object for stdout.
    pub fn to_json(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "code": self.code,
            "msg": self.msg,
            "details": self.details,
        })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.cni_code(), &refusal, &refusal.advice())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::refusal::Reason;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open {path}")]
    struct Outer {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn chain_is_printed_once_and_made_safe() {
        let error = Outer {
            path: "/run/netns/a",
            source: std::io::Error::from_raw_os_error(2),
        };
        let failure = Failure::new(code::NETNS, &error, "look");
        assert_eq!(
            failure.msg,
            "cannot open /run/netns/a: path is absent (os error 2)"
        );
    }

    #[test]
    fn refusal_keeps_code_cause_and_remedy() {
        let refusal = Refusal::new(
            Reason::PodLimit,
            "737 of 737 addresses are in use",
            "add a node",
            Some(Duration::from_secs(2)),
        );
        let json = Failure::from(refusal).to_json(Version::V0_4_0);
        assert_eq!(
            json,
            serde_json::json!({
                "cniVersion": "0.4.0",
                "code": 11,
                "msg": "737 of 737 addresses are in use",
                "details": "add a node (POD_LIMIT, try again after 2 s)",
            })
        );
    }
}
