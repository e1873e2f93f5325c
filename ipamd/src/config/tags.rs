//! Tags that EC2 would refuse. With one of them, no ENI could be created, so they are left out, and reported.
//!
//! The rules are those of "Tag your Amazon EC2 resources" in EC2's user guide: at most 50 tags, keys of 1 to 128
//! characters without the prefix `aws:`, values of up to 256 characters. EC2 allows any character. Control characters are
//! left out all the same: no answer of EC2 could contain them.

use std::collections::BTreeMap;

/// The most tags of one ENI.
const MOST: usize = 50;
/// Those that the daemon sets itself, at most.
const OWN: usize = 4;
const LONGEST_KEY: usize = 128;
const LONGEST_VALUE: usize = 256;

/// The tags that EC2 accepts, and for each other one its key and what was expected.
pub(super) fn sorted_out(
    tags: BTreeMap<String, String>,
) -> (BTreeMap<String, String>, Vec<(String, &'static str)>) {
    let (mut accepted, mut refused) = (BTreeMap::new(), Vec::new());
    for (key, value) in tags {
        let full = accepted.len() >= MOST - OWN;
        match fault(&key, &value).or(full.then_some("at most 46 tags besides the daemon's own")) {
            Some(expected) => refused.push((key, expected)),
            None => drop(accepted.insert(key, value)),
        }
    }
    (accepted, refused)
}

/// What EC2 expects of this tag instead.
pub(super) fn fault(key: &str, value: &str) -> Option<&'static str> {
    let reserved = key
        .get(..4)
        .is_some_and(|prefix| prefix.eq_ignore_ascii_case("aws:"));
    if key.is_empty() {
        Some("a key")
    } else if reserved {
        Some("a key without the prefix aws:, which is reserved")
    } else if key.chars().count() > LONGEST_KEY {
        Some("a key of at most 128 characters")
    } else if value.chars().count() > LONGEST_VALUE {
        Some("a value of at most 256 characters")
    } else if key.chars().chain(value.chars()).any(char::is_control) {
        Some("no control characters")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(key: &str, value: &str) -> Option<&'static str> {
        fault(key, value)
    }

    #[test]
    fn what_ec2_accepts_is_kept() {
        let long = ("k".repeat(128), "ü".repeat(256));
        for (key, value) in [
            ("team@work", "a b"),
            ("empty", ""),
            ("größe", "süß"),
            ("awsome", "aws:value"),
            (&*long.0, &*long.1),
        ] {
            assert_eq!(refused(key, value), None, "{key}={value}");
        }
    }

    #[test]
    fn what_ec2_refuses_is_named() {
        let long = ("k".repeat(129), "v".repeat(257));
        for (key, value, word) in [
            ("", "x", "a key"),
            ("aws:team", "x", "reserved"),
            ("AWS:team", "x", "reserved"),
            (&*long.0, "x", "128"),
            ("x", &*long.1, "256"),
            ("a\u{0}", "x", "control"),
            ("x", "a\nb", "control"),
        ] {
            let expected = refused(key, value).unwrap_or_else(|| panic!("{key:?} is accepted"));
            assert!(expected.contains(word), "{expected}");
        }
    }

    #[test]
    fn the_first_46_tags_are_kept_and_the_others_named() {
        let many = (0..60).map(|n| (format!("k{n:02}"), String::new()));
        let (kept, left_out) = sorted_out(many.collect());
        assert_eq!((kept.len(), left_out.len()), (46, 14));
        assert!(kept.contains_key("k45") && left_out[0].0 == "k46");
    }
}
