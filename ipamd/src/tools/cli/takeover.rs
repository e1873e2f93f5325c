//! `ipamd takeover --dry-run`: what the daemon's next start would take over from the AWS VPC CNI.

use std::{process::ExitCode, sync::Arc};

use datapath::netlink::Socket;
use proto::error_chain::chain;
use stdout::{errln, out};

use super::{USAGE, block_on, print_error};
use crate::{
    config::{Config, Environment},
    ec2::{aws::Aws, executor::Executor, instance_type},
    host::predecessor,
    node::metadata::Metadata,
    sandbox::takeover::{self, plan::Plan},
    telemetry::metrics::Metrics,
};

/// Show which pods of the AWS VPC CNI the daemon would take over
///
/// The daemon takes a node over when it starts: it keeps the addresses and connections of the pods that the AWS VPC CNI
/// started. This command only reads: the checkpoint in HAWSER_AWS_NODE_DIR, the kernel, and the node's ENIs in EC2. It fails
/// if the daemon would refuse. See docs/takeover.md.
#[derive(Debug, clap::Args)]
pub(super) struct Takeover {
    /// Required: nothing but a look is possible here
    #[arg(long, required = true)]
    dry_run: bool,
}

impl Takeover {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: invalid settings:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        let running = predecessor::running(config.pool.family, &config.paths.socket());
        let plan = match block_on(look(&config)) {
            Ok(Ok(plan)) => plan,
            Ok(Err(error)) => return print_error(&error),
            Err(error) => return print_error(&error),
        };
        let mut refused = plan.refusals.len();
        let shown = out!("{plan}");
        if let Err(error) = running {
            refused += 1;
            errln!("ipamd: {}", chain(&error));
        }
        let code = match refused {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        };
        stdout::ended("ipamd", shown.map(|()| code))
    }
}

async fn look(config: &Config) -> Result<Plan, String> {
    let imds = Metadata::new(config.cloud.timeout);
    let me = imds.identity().await.map_err(|e| chain(&e))?;
    let me = Arc::new(me);
    let (proxies, timeout) = (&config.cloud.proxies, config.cloud.timeout);
    let aws = Arc::new(Aws::new(me.region.clone(), proxies, timeout).await);
    let kind = instance_type::known_or_asked(&me.instance_type, &aws).await;
    let kind = kind.map_err(|e| chain(&e))?;
    let metrics = Arc::new(Metrics::new());
    let executor = Executor::new(aws, me, config.cloud.clone(), metrics);
    let enis = executor.attached().await.map_err(|e| e.to_string())?;
    let mut socket = Socket::open().map_err(|e| chain(&e))?;
    let settings = takeover::settings(config, &kind);
    takeover::dry_run(&settings, &enis, &mut socket).map_err(|e| chain(&e))
}
