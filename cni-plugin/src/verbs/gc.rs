//! GC: passes the attachments of this network that are still valid to the daemon. Only an explicit list may free
//! anything.

use std::collections::BTreeSet;

use proto::v1::{Attachment, GcReply, GcRequest};
use serde_json::Value;

use crate::error::Failure;
use crate::input::conf::{Conf, ConfError};
use crate::input::env::Verb;
use crate::rpc::client::Daemon;

/// The key of the specification, and the older one that libcni still sends too.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

pub fn run(conf: &Conf) -> Result<(), Failure> {
    let Some(valid) = valid_attachments(conf)? else {
        return Ok(());
    };
    let request = GcRequest {
        network: conf.name.to_string(),
        valid: valid.into_iter().map(wire).collect(),
    };
    let daemon = Daemon {
        socket: &conf.socket,
        within: conf.deadline(Verb::Gc),
        descriptors: None,
    };
    let GcReply { released: _ } = daemon.call("Gc", |_| request.clone())?;
    Ok(())
}

/// (container id, interface)
pub(crate) type Pair = (String, String);

fn wire((container_id, ifname): Pair) -> Attachment {
    Attachment {
        container_id,
        ifname,
    }
}

/// The union of the lists of both keys; `None` if neither is a list. libcni encodes an empty Go slice as `null`, which
/// may mean "unknown" or "none", so `null` frees nothing.
pub(crate) fn valid_attachments(conf: &Conf) -> Result<Option<BTreeSet<Pair>>, ConfError> {
    let values = KEYS.map(|key| (key, conf.get(key)));
    if values.iter().all(|(_, value)| value.is_none()) {
        return Err(ConfError::Absent {
            verb: Verb::Gc.name(),
            key: KEYS[0],
        });
    }
    let mut union = None;
    for (key, value) in values {
        match value {
            None | Some(Value::Null) => {}
            Some(Value::Array(entries)) => {
                let union: &mut BTreeSet<Pair> = union.get_or_insert_default();
                for entry in entries {
                    union.insert(pair(key, entry)?);
                }
            }
            Some(other) => {
                return Err(ConfError::Type {
                    key,
                    found: crate::input::conf::kind(other),
                    want: "an array",
                });
            }
        }
    }
    Ok(union)
}

/// One invalid entry makes the whole list invalid: it may be the one that is still in use.
fn pair(key: &'static str, entry: &Value) -> Result<Pair, ConfError> {
    let text = |field| match entry[field].as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ConfError::Entry { key, field }),
    };
    Ok((text("containerID")?, text("ifname")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn valid(keys: &str) -> Result<Option<Vec<Pair>>, u32> {
        let text = format!(r#"{{"cniVersion": "1.1.0", "name": "n"{keys}}}"#);
        let conf = Conf::read(text.as_bytes(), Verb::Gc).unwrap();
        match valid_attachments(&conf) {
            Ok(set) => Ok(set.map(|set| set.into_iter().collect())),
            Err(error) => Err(Failure::from(error).code),
        }
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<Pair> {
        let owned = |(id, ifname): &(&str, &str)| ((*id).to_owned(), (*ifname).to_owned());
        list.iter().map(owned).collect()
    }

    const A: &str = r#"{"containerID": "a", "ifname": "eth0"}"#;
    const B: &str = r#"{"containerID": "b", "ifname": "eth0"}"#;

    #[test]
    fn either_key_counts_and_both_are_united() {
        let one = Ok(Some(pairs(&[("a", "eth0")])));
        assert_eq!(
            valid(&format!(r#", "cni.dev/valid-attachments": [{A}]"#)),
            one
        );
        assert_eq!(valid(&format!(r#", "cni.dev/attachments": [{A}]"#)), one);
        assert_eq!(
            valid(&format!(
                r#", "cni.dev/attachments": [{A}], "cni.dev/valid-attachments": [{B}]"#
            )),
            Ok(Some(pairs(&[("a", "eth0"), ("b", "eth0")])))
        );
        assert_eq!(
            valid(&format!(
                r#", "cni.dev/attachments": null, "cni.dev/valid-attachments": [{B}]"#
            )),
            Ok(Some(pairs(&[("b", "eth0")])))
        );
    }

    #[test]
    fn only_an_explicit_list_frees() {
        assert_eq!(valid(""), Err(7));
        assert_eq!(valid(r#", "cni.dev/valid-attachments": null"#), Ok(None));
        assert_eq!(
            valid(r#", "cni.dev/valid-attachments": []"#),
            Ok(Some(Vec::new()))
        );
        assert_eq!(valid(r#", "cni.dev/valid-attachments": {}"#), Err(6));
    }

    #[test]
    fn one_unreadable_entry_spoils_the_list() {
        for entry in [
            "{}",
            "7",
            r#"{"containerID": "a"}"#,
            r#"{"containerID": "", "ifname": "e"}"#,
        ] {
            let keys = format!(r#", "cni.dev/valid-attachments": [{A}, {entry}]"#);
            assert_eq!(valid(&keys), Err(7), "{entry}");
        }
    }
}
