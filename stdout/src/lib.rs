//! What every command line of this workspace does with its standard streams, and the status with which it ends.
//!
//! `println!` panics when the reader has gone, as in `ipamd max-pods --all | head`. Programs here write with [`out!`],
//! hand the error up to `main`, and `main` passes it to [`ended`]. Clippy refuses `print!` and `eprint!` elsewhere.
//! This crate knows no other crate of the workspace.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;

/// The status of a program whose reader has gone: 128 and the number of SIGPIPE, as a shell reports a program that the
/// signal ended. The signal itself stays ignored: it would also end a program that writes to a closed socket.
pub const READER_GONE: u8 = 128 + 13;

/// Writes formatted text to standard output, which gives an [`io::Result`].
#[macro_export]
macro_rules! out {
    ($($text:tt)*) => { $crate::write(::std::format_args!($($text)*)) };
}

/// Writes formatted text and a line's end to standard output, which gives an [`io::Result`].
#[macro_export]
macro_rules! outln {
    () => { $crate::write(::std::format_args!("\n")) };
    ($format:literal $($arguments:tt)*) => {
        $crate::write(::std::format_args!("{}\n", ::std::format_args!($format $($arguments)*)))
    };
}

/// Writes a line to standard error. A closed standard error is ignored.
#[macro_export]
macro_rules! errln {
    ($($text:tt)*) => { $crate::complain(::std::format_args!($($text)*)) };
}

/// What [`out!`] and [`outln!`] do. Flushed at once: a line that a reader waits for must not wait for the next one.
///
/// # Errors
/// Those of the write; [`ErrorKind::BrokenPipe`] if the reader has gone.
pub fn write(text: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_fmt(text)?;
    out.flush()
}

/// What [`errln!`] does.
pub fn complain(text: std::fmt::Arguments<'_>) {
    let mut line = text.to_string();
    line.push('\n');
    // In one piece, so that lines of several programs do not mix.
    io::stderr().write_all(line.as_bytes()).unwrap_or_default();
}

/// The status with which `program` ends. A reader that has gone wants no more, and no message either.
#[must_use]
pub fn ended(program: &str, outcome: io::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(status) => status,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::from(READER_GONE),
        Err(error) => {
            errln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}
