//! The log of EC2 calls, for tests that count them.

use std::time::Duration;

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered,
    /// Refused with this error code.
    Refused(String),
    /// Done, but the injected fault closed the connection before the answer.
    ReplyLost,
    /// Neither done nor answered, because of an injected fault.
    Hung,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// As sent by the caller, known or not.
    pub action: String,
    /// All other parameters, sorted: `A=1&B=2`, not escaped.
    pub params: String,
    /// When it took effect, as time since the Unix epoch.
    pub at: Duration,
    pub outcome: Outcome,
}

impl Call {
    /// The value of a parameter.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .split('&')
            .find_map(|p| p.strip_prefix(name)?.strip_prefix('='))
    }
}

/// Sorted and joined, for [`Call::params`].
pub(crate) fn digest(form: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = form
        .iter()
        .filter(|(k, _)| k != "Action")
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    pairs.sort();
    pairs.join("&")
}
