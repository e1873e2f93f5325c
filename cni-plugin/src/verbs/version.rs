//! VERSION: which versions of the protocol are served.

use std::io::{IsTerminal, Read};

use serde_json::{Value, json};

use crate::input::conf::asked_version;
use crate::version::{Version, supported};

/// Returns the caller's version if it is one that is served, otherwise the latest. Succeeds with any stdin.
pub fn run(stdin: impl Read + IsTerminal) -> (Version, Value) {
    // A person who runs this in a terminal does not have to type an end of file.
    let asked = if stdin.is_terminal() {
        None
    } else {
        asked_version(stdin)
    };
    let version = asked.unwrap_or(Version::LATEST);
    let result = json!({
        "cniVersion": version.as_str(),
        "supportedVersions": supported(),
    });
    (version, result)
}
