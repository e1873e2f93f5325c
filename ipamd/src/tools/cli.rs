//! The command line of `ipamd`, and its exit status.
//!
//! `cli/` has one file per command. Results go to standard output, errors to standard error. Only `run`, `install`, `uninstall`
//! and `handback` change anything on the node, and only `run` in EC2.
//!
//! May use every folder of the daemon and the rest of `tools`. Must not know a wire format.

mod doctor;
mod handback;
mod inspect;
mod install;
mod max_pods;
mod run;
mod settings;
mod table;
mod takeover;
mod uninstall;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stdout::errln;

/// Hawser's node daemon, and tools for operators.
///
/// `ipamd run` keeps VPC addresses ready and connects pods to the VPC. install, uninstall and handback change the node.
/// The other commands only read: takeover shows which pods of the AWS VPC CNI would be kept, settings converts
/// its settings, max-pods calculates how many pods an instance type supports and what a warm target costs,
/// inspect shows the node's addresses and the pool's next steps, doctor checks the node for problems.
#[derive(Debug, Parser)]
#[command(
    name = "ipamd",
    version,
    max_term_width = 100,
    after_long_help = "EXIT STATUS\n  0   success\n  1   failure or a negative result; the reason is on standard error\n  2   \
                       the command line is invalid\n  64  a setting is invalid\n\n\
                       REFUSALS\n  If a pod gets no network, its event ends with a reason in capitals, such as \
                       (POD_LIMIT, …).\n  The daemon's log and metrics use the same reason. docs/refusals.md explains \
                       each of them, with\n  its remedy."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    Takeover(takeover::Takeover),
    Handback(handback::Handback),
    Settings(settings::Settings),
    MaxPods(max_pods::MaxPods),
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
}

/// `EX_USAGE` of sysexits.h: the settings are invalid, so a restart does not help.
const USAGE: u8 = 64;

/// Parses the process's arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::Install(install) => install.run(),
        Command::Uninstall(uninstall) => uninstall.run(),
        Command::Settings(settings) => settings.run(),
        Command::Handback(handback) => handback.run(),
        Command::Takeover(takeover) => takeover.run(),
        Command::MaxPods(max_pods) => max_pods.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Doctor(doctor) => doctor.run(),
    }
}

/// Prints to standard error why there is no result.
fn print_error(why: &dyn std::fmt::Display) -> ExitCode {
    errln!("ipamd: {why}");
    ExitCode::FAILURE
}

/// Runs the asynchronous part of a command on this thread.
///
/// # Errors
/// If the kernel cannot create an event queue.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}
