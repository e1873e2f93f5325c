//! The order of work: read the environment, read the configuration, run the verb, print one JSON.
//!
//! Owns the process's two outputs: one JSON on stdout, at most one line on stderr.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};

use serde_json::Value;

use crate::error::{Failure, code};
use crate::input::conf::Conf;
use crate::input::env::{Variables, Verb};
use crate::verbs::{add, check, del, gc, status};
use crate::version::{self, Version};

/// One call of the runtime. Returns the exit status.
pub fn call() -> i32 {
    std::panic::set_hook(Box::new(report_panic));
    let variables = Variables(|name: &str| std::env::var_os(name));
    let answered = match variables.verb() {
        Ok(None) => {
            about();
            true
        }
        Ok(Some(verb)) => {
            let (version, outcome) = run(verb, &variables, std::io::stdin());
            answer(verb.name(), version, outcome)
        }
        Err(error) => answer("", Version::LATEST, Err(error.into())),
    };
    i32::from(!answered)
}

/// The result of one call, and the protocol version for its output.
fn run<F: Fn(&str) -> Option<OsString>>(
    verb: Verb,
    variables: &Variables<F>,
    stdin: impl Read + IsTerminal,
) -> (Version, Result<Option<Value>, Failure>) {
    if verb == Verb::Version {
        let (version, result) = crate::verbs::version::run(stdin);
        return (version, Ok(Some(result)));
    }
    if let Err(error) = variables.require(verb) {
        return (Version::LATEST, Err(error.into()));
    }
    match Conf::read(stdin, verb) {
        Ok(conf) => (conf.version, dispatch(verb, variables, &conf)),
        Err(error) => (Version::LATEST, Err(error.into())),
    }
}

fn dispatch<F: Fn(&str) -> Option<OsString>>(
    verb: Verb,
    variables: &Variables<F>,
    conf: &Conf,
) -> Result<Option<Value>, Failure> {
    match verb {
        Verb::Add => add::run(&variables.attachment()?, variables.pod()?, conf).map(Some),
        Verb::Del => del::run(&variables.attachment()?, conf).map(|()| None),
        Verb::Check => check::run(&variables.attachment()?, conf).map(|()| None),
        Verb::Status => status::run(conf).map(|()| None),
        Verb::Gc => gc::run(conf).map(|()| None),
        // Answered before the configuration is read.
        Verb::Version => Ok(None),
    }
}

/// Prints the JSON and returns whether the call succeeded. The specification has no result for DEL, CHECK, STATUS and
/// GC: they print nothing on success.
fn answer(verb: &str, version: Version, outcome: Result<Option<Value>, Failure>) -> bool {
    match outcome {
        Ok(None) => true,
        Ok(Some(result)) => print(&result),
        Err(failure) => {
            note(format_args!(
                "{verb}: code {}: {}",
                failure.code, failure.msg
            ));
            print(&failure.to_json(version));
            false
        }
    }
}

/// Writes `json` to stdout in one piece. If the runtime no longer reads, the call fails, and the runtime will send a
/// DEL.
fn print(json: &Value) -> bool {
    let mut line = json.to_string();
    line.push('\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(line.as_bytes()).is_ok() && stdout.flush().is_ok()
}

/// Writes one line to stderr in one piece, which runtimes add to their log. A closed stderr is ignored.
fn note(line: std::fmt::Arguments<'_>) {
    let line = format!("hawser {line}\n");
    drop(std::io::stderr().write_all(line.as_bytes()));
}

fn about() {
    note(format_args!(
        "{}: CNI plugin for AWS VPCs; protocol versions {}",
        env!("CARGO_PKG_VERSION"),
        version::supported().join(", ")
    ));
}

/// Even a defect is reported in the protocol; the abort afterwards makes the exit status non-zero.
fn report_panic(panic: &std::panic::PanicHookInfo<'_>) {
    #[derive(Debug, thiserror::Error)]
    #[error("the plugin has a defect: {what}")]
    struct Defect {
        what: String,
    }
    let defect = Defect {
        what: panic.to_string(),
    };
    let failure = Failure::new(code::INTERNAL, &defect, "please report this");
    answer("", Version::LATEST, Err(failure));
}
