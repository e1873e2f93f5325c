//! `ipamd run`: the daemon itself, from its settings to its end.

use std::process::ExitCode;

use super::USAGE;
use crate::{
    config::{Config, Environment},
    daemon, log, refusals,
};

/// Serve the CNI plugin on this node until SIGTERM
///
/// Settings come from the environment, under the names that the AWS VPC CNI uses (WARM_ENI_TARGET, MAX_ENI, …). Needs
/// CAP_NET_ADMIN in the host's network namespace, the instance metadata service and the EC2 API. Log lines are JSON on
/// standard error.
#[derive(Debug, clap::Args)]
pub(super) struct Run {}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                eprintln!("ipamd: settings cannot be used:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        log::start(config.log_level);
        tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
        for setting in &config.ignored {
            tracing::warn!(setting, "a setting is ignored");
        }
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
                super::complain(&error)
            }
        }
    }
}
