//! Every command line of the workspace with a closed standard output, as in `ipamd max-pods --all | head` after `head`
//! has ended.

use std::{
    io,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use lab::node::binaries;

use crate::suite::{Outcome, trials};

trials!(
    commands_end_quietly_when_their_reader_has_gone,
    help_ends_quietly_when_its_reader_has_gone,
    the_plugin_fails_quietly_when_its_reader_has_gone,
);

/// Binaries that `make build` puts next to the daemon, and arguments that make each of them print quickly.
const BUILT: [(&str, &[&str]); 12] = [
    ("ipamd", &["max-pods", "--all"]),
    ("ipamd", &["max-pods", "--all", "--output", "json"]),
    ("ipamd", &["max-pods", "m5.large", "--explain"]),
    (
        "ipamd",
        &["max-pods", "m5.large", "--plan", "WARM_IP_TARGET=5, 3 pods"],
    ),
    ("vpc-sim", &["serve"]),
    ("demo", &[]),
    ("sim", &["1"]),
    ("sim", &["--seed", "1"]),
    ("soak", &["1"]),
    ("planner", &[]),
    ("warm", &["m5.large", "1"]),
    ("fleet", &[]),
];

/// Runs it with a pipe as standard output whose other end is closed.
fn unread(mut command: Command) -> io::Result<Output> {
    let (reader, writer) = io::pipe()?;
    drop(reader);
    command
        .stdin(Stdio::null())
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()?
        .wait_with_output()
}

fn beside_the_daemon(name: &str) -> PathBuf {
    let mut path = binaries::ipamd();
    path.set_file_name(name);
    path
}

fn commands_end_quietly_when_their_reader_has_gone() -> Outcome {
    for (name, arguments) in BUILT {
        let mut command = Command::new(beside_the_daemon(name));
        command.args(arguments);
        let ended = unread(command)?;
        let said = String::from_utf8_lossy(&ended.stderr);
        let status = ended.status.code();
        assert_eq!(
            status,
            Some(stdout::READER_GONE.into()),
            "{name} {arguments:?}: {said}"
        );
        assert_eq!(said, "", "{name} {arguments:?}");
    }
    Ok(())
}

fn help_ends_quietly_when_its_reader_has_gone() -> Outcome {
    for name in ["ipamd", "vpc-sim"] {
        let mut command = Command::new(beside_the_daemon(name));
        command.arg("--help");
        let ended = unread(command)?;
        assert_eq!(ended.status.code(), Some(0), "{name}");
        assert!(ended.stderr.is_empty(), "{name}: {ended:?}");
    }
    Ok(())
}

/// A runtime that does not read the answer must not treat the call as a success.
fn the_plugin_fails_quietly_when_its_reader_has_gone() -> Outcome {
    let mut command = Command::new(binaries::plugin());
    command.env_clear().env("CNI_COMMAND", "VERSION");
    let ended = unread(command)?;
    assert_eq!(ended.status.code(), Some(1));
    assert!(ended.stderr.is_empty(), "{ended:?}");
    Ok(())
}
