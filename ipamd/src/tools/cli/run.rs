//! `ipamd run`: the daemon itself, from its settings to its end.

use std::process::ExitCode;

use proto::error_chain::chain;
use stdout::errln;

use super::USAGE;
use crate::{
    config::{Config, Environment},
    daemon,
    runtime::log,
};

/// Which of OpenTelemetry's variables have an effect.
const TRACES: &str = "\
TRACES
  With OTEL_EXPORTER_OTLP_ENDPOINT (or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT) set, each request of the
  plugin and each call to EC2 is a span for the OpenTelemetry collector there. A collector that is
  away costs spans (hawser_spans_dropped_total) and delays nothing.

  OTEL_EXPORTER_OTLP_ENDPOINT   http://host:port; no TLS: let a collector on the node carry spans on
  OTEL_EXPORTER_OTLP_PROTOCOL   http/protobuf (default) or grpc
  OTEL_EXPORTER_OTLP_HEADERS    name=value pairs, separated by commas
  OTEL_EXPORTER_OTLP_TIMEOUT    milliseconds that one request may take (10000)
  OTEL_SERVICE_NAME             hawser-ipamd
  OTEL_RESOURCE_ATTRIBUTES      beside what is known: cloud.*, host.*, k8s.node.name
  OTEL_TRACES_SAMPLER[_ARG]     [parentbased_]always_on, always_off or traceidratio
  OTEL_BSP_SCHEDULE_DELAY, OTEL_BSP_EXPORT_TIMEOUT   milliseconds (5000, 30000)
  OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE   spans (2048, 512)
  OTEL_TRACES_EXPORTER=none, OTEL_SDK_DISABLED=true   no spans, whatever else is set

  _TRACES_ after OTLP, as in OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, goes before the common name.";

/// Serve the CNI plugin on this node until SIGTERM
///
/// Settings come from the environment, under the names that the AWS VPC CNI uses (WARM_ENI_TARGET, MAX_ENI, …). Needs
/// CAP_NET_ADMIN in the host's network namespace, the instance metadata service and the EC2 API. Log lines are JSON on
/// standard error.
#[derive(Debug, clap::Args)]
#[command(after_long_help = TRACES)]
pub(super) struct Run {}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        let config = match Config::read(&Environment) {
            Ok(config) => config,
            Err(mistakes) => {
                errln!("ipamd: settings cannot be used:\n{mistakes}");
                return ExitCode::from(USAGE);
            }
        };
        log::start(config.log_level);
        tracing::info!(?config, version = env!("CARGO_PKG_VERSION"), "starting");
        for setting in &config.ignored {
            tracing::warn!(setting, "a setting is ignored");
        }
        // One worker: two wake each other for every task that follows on another, a fifth of an ADD on two processors.
        // What takes time is on threads of its own, and a storm is bounded by the kernel's lock, not by this.
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
                super::complain(&error)
            }
        }
    }
}
