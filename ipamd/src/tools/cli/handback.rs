//! `ipamd handback`: gives the node back to the AWS VPC CNI.

use std::{process::ExitCode, time::Duration};

use proto::error_chain::chain;
use stdout::{errln, out, outln};
use tokio::signal::unix::{SignalKind, signal};

use super::{USAGE, block_on, print_error};
use crate::{
    config::{Config, Environment},
    daemon::boot_id,
    host::predecessor::Seen,
    http::probes,
    install::handback,
};

/// Between two looks whether the AWS VPC CNI runs.
const PERIOD: Duration = Duration::from_secs(1);

/// Give this node back to the AWS VPC CNI
///
/// The pods keep their addresses and connections. First, each gets the rules of the AWS VPC CNI beside Hawser's, and an entry
/// in its checkpoint in HAWSER_AWS_NODE_DIR, so that its daemon keeps the pod. Then Hawser's rules are removed. Until the
/// AWS VPC CNI runs, pods on secondary ENIs cannot open connections out of the VPC without Hawser's rules: use --wait. The
/// daemon must be stopped. The ENIs stay attached, and the plugin stays installed. See docs/takeover.md.
#[derive(Debug, clap::Args)]
pub(super) struct Handback {
    /// Show what would be given back, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Give the node back even if some pods cannot be given back as they are
    #[arg(long)]
    force: bool,
    /// Keep Hawser's rules until the AWS VPC CNI runs. Afterwards answer the kubelet's probes until SIGTERM
    #[arg(long)]
    wait: bool,
}

impl Handback {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: invalid settings:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        if self.dry_run {
            return look(&config);
        }
        let done = self.give_back(&config).and_then(|pods| {
            let told = match pods {
                Some(0) => {
                    outln!("Hawser has no pods on this node: there was nothing to give back")
                }
                _ => outln!("this node is given back to the AWS VPC CNI"),
            };
            match self.wait {
                true => told.and_then(|()| block_on(answer_probes(&config))?),
                false => told,
            }
            .map_err(|error| error.to_string())
        });
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => print_error(&error),
        }
    }

    /// Returns how many pods there were; `None` if an earlier process gave them back.
    fn give_back(&self, config: &Config) -> Result<Option<usize>, String> {
        let boot = boot_id().map_err(|error| format!("cannot read the boot id: {error}"))?;
        let begun = handback::begin(&config.paths, &config.takeover, &boot, self.force);
        let both = begun.map_err(|error| chain(&error))?;
        let pods = both.pods;
        if let Some(pods) = pods.filter(|pods| *pods > 0) {
            errln!("ipamd: {pods} pods have the rules of both programs");
        }
        if self.wait {
            errln!("ipamd: waiting for the AWS VPC CNI on this node");
            while Seen::here().aws_node.is_none() {
                std::thread::sleep(PERIOD);
            }
        }
        both.finish().map_err(|error| chain(&error))?;
        Ok(pods)
    }
}

fn look(config: &Config) -> ExitCode {
    let plan = match handback::dry_run(&config.paths, &config.takeover) {
        Ok(plan) => plan,
        Err(error) => return print_error(&chain(&error)),
    };
    let code = match plan.obstacles.len() {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    };
    stdout::ended("ipamd", out!("{plan}").map(|()| code))
}

async fn answer_probes(config: &Config) -> std::io::Result<()> {
    let mut end = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = end.recv() => Ok(()),
        served = probes::serve_success(config.probes) => served,
    }
}
