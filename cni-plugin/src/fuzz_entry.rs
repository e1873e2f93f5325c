//! Entry of the fuzz target, and of the test that replays its corpus: passes what a runtime hands over through everything that
//! reads it. Opens, connects to and prints nothing.

use std::{ffi::OsString, hint::black_box, os::unix::ffi::OsStringExt};

use nettypes::Mac;

use crate::error::Failure;
use crate::input::conf::Conf;
use crate::input::env::{Variables, Verb};
use crate::input::runtime_config;
use crate::result::{Granted, Interface, address_in};
use crate::verbs::gc::valid_attachments;
use crate::version::Version;

/// The variables, in the order of an input.
const NAMES: [&str; 6] = [
    "CNI_COMMAND",
    "CNI_CONTAINERID",
    "CNI_NETNS",
    "CNI_IFNAME",
    "CNI_ARGS",
    "CNI_PATH",
];

/// `input` is the six variables, each followed by a NUL, and then stdin.
pub fn cni(input: &[u8]) {
    let mut parts = input.splitn(NAMES.len() + 1, |byte| *byte == 0);
    let values = NAMES.map(|_| parts.next().unwrap_or_default());
    let stdin = parts.next().unwrap_or_default();
    let variables = Variables(|name: &str| {
        let index = NAMES.iter().position(|known| *known == name)?;
        Some(OsString::from_vec(values[index].to_vec()))
    });
    if let Err(failure) = read(&variables, stdin) {
        check(&failure);
    }
}

/// The properties of every answer: one line, without the words that a runtime treats as success.
fn check(failure: &Failure) {
    let json = failure.to_json(Version::LATEST).to_string();
    assert!(!json.contains('\n'), "more than a line: {json}");
    // Case-sensitive, like containerd's comparison.
    assert!(
        !json.contains("not found"),
        "a runtime swallows this: {json}"
    );
    assert!(failure.code != 0);
}

/// As in `main`, up to the call of the daemon.
fn read<F: Fn(&str) -> Option<OsString>>(
    variables: &Variables<F>,
    stdin: &[u8],
) -> Result<(), Failure> {
    let Some(verb) = variables.verb()? else {
        return Ok(());
    };
    if verb == Verb::Version {
        black_box(crate::input::conf::asked_version(stdin));
        return Ok(());
    }
    variables.require(verb)?;
    let conf = Conf::read(stdin, verb)?;
    assert!(conf.deadline(verb) <= verb.deadline());
    let prev = conf.prev_result()?;
    match verb {
        Verb::Gc => drop(valid_attachments(&conf)?),
        Verb::Status | Verb::Version => {}
        Verb::Add => {
            let (attachment, _pod) = (variables.attachment()?, variables.pod()?);
            black_box(conf.link()?);
            black_box(runtime_config::asked(&conf)?);
            let sandbox = attachment.netns.unwrap_or_default();
            let result = granted().to_json(conf.version, &sandbox, prev)?;
            // The result of ADD is passed back as prevResult.
            let again = address_in(result.as_object().expect("it is one"), "eth0");
            drop(again);
        }
        Verb::Del | Verb::Check => {
            let attachment = variables.attachment()?;
            black_box(attachment.key(&conf.name));
            if let (Verb::Check, Some(prev)) = (verb, prev) {
                black_box(address_in(prev, attachment.ifname.as_str())?);
            }
        }
    }
    Ok(())
}

fn granted() -> Granted {
    let end = |name: &str| Interface {
        name: name.to_owned(),
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 9001,
    };
    Granted {
        address: [10, 0, 0, 5].into(),
        gateway: [169, 254, 1, 1].into(),
        host: end("eni0123456789a"),
        pod: end("eth0"),
        secondary: false,
    }
}

#[cfg(test)]
mod tests {
    use super::cni;

    #[test]
    fn the_corpus_harms_nothing() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/corpus/cni");
        let mut replayed = 0;
        for entry in std::fs::read_dir(corpus).unwrap() {
            cni(&std::fs::read(entry.unwrap().path()).unwrap());
            replayed += 1;
        }
        assert!(replayed > 0, "no corpus");
    }
}
