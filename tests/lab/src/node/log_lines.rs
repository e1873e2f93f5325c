//! The daemon's log lines, held to what people and log processors can read: JSON with plain fields.
//!
//! Knows nothing of the daemon but the text that it wrote.

use serde_json::Value;

/// Fields of `log` whose value is written in Rust's debug syntax: quoted a second time, `Some(…)`, `EniId("…")`,
/// `Config { … }`, `["a", "b"]`. One line for each.
///
/// Lines that are not JSON are passed over: a panic writes some.
#[must_use]
pub fn in_debug_syntax(log: &str) -> Vec<String> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = Vec::new();
    for line in lines {
        for (name, value) in line.as_object().into_iter().flatten() {
            // An object is what an operator wrote, setting by setting.
            let Some(text) = value.as_str() else { continue };
            if is_debug_syntax(text) {
                found.push(format!("{name}: {text} ({})", line["message"]));
            }
        }
    }
    found
}

fn is_debug_syntax(text: &str) -> bool {
    let quoted = text.len() > 1 && text.starts_with('"') && text.ends_with('"');
    let listed = text.starts_with('[') && text.ends_with(']');
    quoted || listed || text == "None" || names_a_value(text)
}

/// Whether a word in CamelCase is followed by `(` or by ` {`.
fn names_a_value(text: &str) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find(['(', '{']) {
        let before = &rest[..at];
        let before = match rest.as_bytes()[at] {
            b'{' => before.trim_end_matches(' '),
            _ => before,
        };
        let word = before
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap_or_default();
        if word.starts_with(|c: char| c.is_ascii_uppercase())
            && word.contains(|c: char| c.is_ascii_lowercase())
        {
            return true;
        }
        rest = &rest[at + 1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_syntax_is_found() {
        for text in [
            r#"Assign { op: Op(2), eni: EniId("eni-1") }"#,
            r#""/run/hawser""#,
            "Some(10.0.0.1)",
            "None",
            r#"["a", "b"]"#,
            "Throttled { retry_after: None }",
            "Http(1)",
        ] {
            let log = serde_json::json!({ "message": "m", "field": text }).to_string();
            assert_eq!(in_debug_syntax(&log).len(), 1, "{text}");
        }
    }

    #[test]
    fn plain_fields_pass() {
        for text in [
            "AssignPrivateIpAddresses eni-1: 8 addresses",
            "could not open \"/run/hawser\": denied (os error 13)",
            "10.0.0.0/16, 10.1.0.0/16",
            "1.5s",
            "aws-cni/c0ffee/eth0",
            "m5.large may have 3 ENIs (2 are the pool's)",
            "did you mean MAX_ENI?",
            "x (POD_LIMIT, try again after 2 s)",
        ] {
            let log = serde_json::json!({ "message": "m", "field": text }).to_string();
            assert_eq!(in_debug_syntax(&log), Vec::<String>::new(), "{text}");
        }
        let settings = serde_json::json!({ "settings": { "A": "[\"x\"]" } }).to_string();
        assert_eq!(in_debug_syntax(&settings), Vec::<String>::new());
        assert_eq!(in_debug_syntax("thread panicked"), Vec::<String>::new());
    }
}
