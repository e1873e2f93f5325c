//! The command line: what can be asked of `ipamd`, and how the process ends.
//!
//! One file per command below `cli/`. Answers go to standard output and nothing else does; complaints go to standard
//! error. No command but `run` changes anything, on the node or in EC2.

mod doctor;
mod inspect;
mod max_pods;
mod run;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use stdout::errln;

/// Hawser's node daemon, and what an operator asks about its node.
///
/// `ipamd run` keeps VPC addresses warm and wires pods to them. The other commands answer questions and change nothing:
/// how many pods can an instance type hold and what will a warm-pool policy cost (max-pods), what holds this node's
/// addresses and what happens next (inspect), what is wrong with this node (doctor).
#[derive(Debug, Parser)]
#[command(
    name = "ipamd",
    version,
    max_term_width = 100,
    after_long_help = "EXIT STATUS\n  0   the answer is good\n  1   the answer is bad, or could not be had; the reason is on \
                       standard error\n  2   the command line cannot be read\n  64  a setting cannot be used\n\n\
                       REFUSALS\n  The event of a pod that got no network ends with a reason in capitals, such as \
                       (POD_LIMIT, …).\n  It is the same in the daemon's log, in its metrics and in docs/refusals.md, \
                       which says what each\n  means and what helps."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Run),
    MaxPods(max_pods::MaxPods),
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
}

/// `EX_USAGE` of sysexits.h: the settings are wrong, and starting again will not help.
const USAGE: u8 = 64;

/// Reads the process's arguments and carries the command out.
#[must_use]
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::MaxPods(max_pods) => max_pods.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Doctor(doctor) => doctor.run(),
    }
}

/// Says on standard error why there is no answer.
fn complain(why: &dyn std::fmt::Display) -> ExitCode {
    errln!("ipamd: {why}");
    ExitCode::FAILURE
}

/// Runs one command's asynchronous part on this thread.
///
/// # Errors
/// If the kernel gives no event queue.
fn block_on<T>(work: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(work))
}
