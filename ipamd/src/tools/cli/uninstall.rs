//! `ipamd uninstall`: removes Hawser from the node.

use std::process::ExitCode;

use proto::error_chain::chain;
use stdout::{errln, outln};
use tokio::signal::unix::{SignalKind, signal};

use super::{USAGE, block_on, print_error};
use crate::{
    config::{Config, Environment},
    http::probes,
    install::uninstall::uninstall,
};

/// Remove Hawser from this node
///
/// Removes the network configuration, rules, routes, nftables, state and plugin. The daemon must be stopped. If pods with Hawser's addresses run on the node, the command changes nothing and fails:
/// drain the node first. The ENIs stay attached until the instance is terminated.
#[derive(Debug, clap::Args)]
pub(super) struct Uninstall {
    /// Clean the node even if pods run on it. Their connections break
    #[arg(long)]
    force: bool,
    /// Keep running until SIGTERM afterwards, and answer kubelet's probes
    #[arg(long)]
    wait: bool,
}

impl Uninstall {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: invalid settings:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        if let Err(error) = uninstall(&config.paths, self.force) {
            return print_error(&chain(&error));
        }
        let done = outln!("Hawser is removed from this node").and_then(|()| match self.wait {
            true => block_on(async {
                let mut end = signal(SignalKind::terminate())?;
                tokio::select! {
                    _ = end.recv() => Ok(()),
                    served = probes::serve_success(config.probes) => served,
                }
            })?,
            false => Ok(()),
        });
        stdout::ended("ipamd", done.map(|()| ExitCode::SUCCESS))
    }
}
