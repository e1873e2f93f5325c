//! The node daemon's command line. Only this file exits the process.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use ipamd::{
    config::{Config, Environment},
    daemon, log, refusals,
};

/// Hawser's node daemon: keeps VPC addresses warm and wires pods to them.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the CNI plugin on this node until SIGTERM.
    ///
    /// Settings come from the environment, under the names that the AWS VPC CNI uses (WARM_ENI_TARGET, MAX_ENI, …).
    /// Needs CAP_NET_ADMIN in the host's network namespace, the instance metadata service and the EC2 API.
    Run,
}

/// EX_USAGE of sysexits.h: the settings are wrong, and starting again will not help.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let Arguments {
        command: Command::Run,
    } = Arguments::parse();
    let config = match Config::read(&Environment) {
        Ok(config) => config,
        Err(mistakes) => {
            eprintln!("ipamd: settings cannot be used:\n{mistakes}");
            return ExitCode::from(USAGE);
        }
    };
    log::start(config.log_level);
    tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime
            .block_on(daemon::run(config))
            .map_err(|error| refusals::chain(&error)),
        Err(error) => Err(format!("could not start the runtime: {error}")),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error, "ipamd ends");
            eprintln!("ipamd: {error}");
            ExitCode::FAILURE
        }
    }
}
