//! Log lines: JSON on standard error, one event per line. Initialised once, by `main`.

use tracing_subscriber::{EnvFilter, filter::LevelFilter, fmt};

/// Installs the subscriber. Our own crates log at `level`, libraries only warnings.
pub fn start(level: tracing::Level) {
    // kube-runtime warns at every try; `crate::kube` logs once that the API server is unavailable.
    let ours = ["ipamd", "datapath", "planner"]
        .map(|name| format!("{name}={level}"))
        .join(",")
        + ",kube_runtime=error";
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .parse_lossy(ours);
    let subscriber = fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call can only come from a test; the first one stays in effect.
    drop(subscriber.try_init());
}
