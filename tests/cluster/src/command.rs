//! Runs commands and waits for their end.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Runs a command and returns its standard output.
///
/// # Errors
/// If it cannot be started or fails. The error contains the command and its standard error.
pub fn run(command: &mut Command) -> io::Result<String> {
    feed(command, "")
}

/// Like [`run`], with `input` on standard input.
///
/// # Errors
/// As [`run`].
pub fn feed(command: &mut Command, input: &str) -> io::Result<String> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let name = words.join(" ");
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{name}: {error}"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(input.as_bytes()) {
            // A command that does not read all its input prints the reason on standard error.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let text = format!("{name} failed ({}): {}", output.status, said.trim());
    Err(io::Error::other(text))
}
