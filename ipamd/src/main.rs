//! The node daemon's process. The command line is in [`ipamd::tools::cli`]; only this file exits.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    ipamd::tools::cli::main()
}
