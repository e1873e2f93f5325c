//! `ipamd uninstall`: removes Hawser from the node.

use std::{process::ExitCode, time::Duration};

use proto::{error_chain::chain, tombstone::DEL_LIMIT};
use stdout::{errln, outln};
use tokio::signal::unix::{SignalKind, signal};

use super::{USAGE, block_on, print_error};
use crate::{
    config::{Config, Environment},
    http::probes,
    install::uninstall::{UninstallError, uninstall},
};

/// Between two looks whether pods still run.
const PERIOD: Duration = Duration::from_secs(5);

/// Remove Hawser from this node
///
/// Removes the network configuration, rules, routes, nftables, state and plugin. The daemon must be stopped. If pods with Hawser's addresses run on the node, the command changes nothing and fails:
/// drain the node first. The ENIs stay attached until the instance is terminated.
#[derive(Debug, clap::Args)]
pub(super) struct Uninstall {
    /// Clean the node even if pods run on it. Their connections break
    #[arg(long)]
    force: bool,
    /// Wait until no pod runs on the node. Afterwards answer the kubelet's probes until SIGTERM
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
        if let Err(error) = self.clean(&config) {
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

    /// With `--wait`, until the node's last pod has gone. A pod of the DaemonSet that ended instead would be started again
    /// at ever longer intervals.
    fn clean(&self, config: &Config) -> Result<(), UninstallError> {
        let mut told = String::new();
        let mut cleaned = false;
        loop {
            match uninstall(&config.paths, &config.takeover, self.force) {
                Err(error @ UninstallError::Pods { .. }) if self.wait => {
                    let text = error.to_string();
                    if text != told {
                        errln!("ipamd: {text}");
                        told = text;
                    }
                    std::thread::sleep(PERIOD);
                }
                Ok(()) if self.wait && !cleaned => {
                    // A pod's link ends before its DEL: one that is in progress waits for the daemon and then leaves a
                    // tombstone in the empty directory.
                    cleaned = true;
                    std::thread::sleep(DEL_LIMIT);
                }
                other => return other,
            }
        }
    }
}
