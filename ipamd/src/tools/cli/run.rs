//! `ipamd run`: reads the settings and runs the daemon.

use std::process::ExitCode;

use proto::error_chain::chain;
use serde_json::json;
use stdout::errln;

use super::USAGE;
use crate::{
    config::{
        Config, Environment,
        notices::{Kind, Notice, differing},
    },
    daemon,
    runtime::{log, memory},
};

/// The OpenTelemetry variables that the daemon supports.
const TRACES: &str = "\
TRACES
  If OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) is set, the daemon sends a
  span for each request of the plugin and each EC2 call to this OpenTelemetry collector. If the
  collector is not available, spans are lost (hawser_spans_dropped_total), but nothing is delayed.

  OTEL_EXPORTER_OTLP_ENDPOINT   http://host:port; TLS is not supported: use a collector on the node
  OTEL_EXPORTER_OTLP_PROTOCOL   http/protobuf (default) or grpc
  OTEL_EXPORTER_OTLP_HEADERS    name=value pairs, separated by commas
  OTEL_EXPORTER_OTLP_TIMEOUT    time limit of one request, in milliseconds (10000)
  OTEL_SERVICE_NAME             hawser-ipamd
  OTEL_RESOURCE_ATTRIBUTES      in addition to cloud.*, host.* and k8s.node.name
  OTEL_TRACES_SAMPLER[_ARG]     [parentbased_]always_on, always_off or traceidratio
  OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_EXPORT_TIMEOUT   milliseconds (5000, 30000)
  OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE   numbers of spans (2048, 512)
  OTEL_TRACES_EXPORTER=none, OTEL_SDK_DISABLED=true   disable tracing

  A name with _TRACES_, such as OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, overrides the name without it.";

/// Serve the CNI plugin on this node until SIGTERM
///
/// The settings are environment variables with the names of the AWS VPC CNI (WARM_ENI_TARGET, MAX_ENI, …). The daemon
/// needs CAP_NET_ADMIN in the host's network namespace, the instance metadata service, and the EC2 API. The log is JSON
/// lines on standard error.
#[derive(Debug, clap::Args)]
#[command(after_long_help = TRACES)]
pub(super) struct Run {}

/// Which version starts, with which settings, and what is wrong with them.
fn tell(config: &Config) {
    let settings = json!(differing(&Environment)).to_string();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(settings_json = settings, version, "starting");
    for notice in &config.notices {
        let Notice { setting, text, .. } = notice;
        match notice.kind {
            Kind::Ignored => tracing::warn!(setting, expected = text, "a setting is ignored"),
            Kind::NotServed => {
                tracing::warn!(setting, instead = text, "a setting is not served");
            }
            Kind::NotServedStock => {
                tracing::info!(setting, instead = text, "a setting is not served");
            }
            Kind::Unknown => tracing::warn!(setting, hint = text, "a setting is not known"),
        }
    }
}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: invalid settings:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        memory::use_one_arena();
        log::start(config.log_level);
        tell(&config);
        // One worker thread. Two would wake each other for every task that follows another one, which takes a fifth of
        // an ADD's time on two processors. Slow work has its own threads, and the kernel's lock limits many ADDs at
        // once, not this thread.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let ended = match runtime {
            Ok(runtime) => runtime
                .block_on(daemon::run(config))
                .map_err(|error| chain(&error)),
            Err(error) => Err(format!("could not start the runtime: {error}")),
        };
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error, "ipamd ends");
                super::print_error(&error)
            }
        }
    }
}
