//! Sends spans to a collector: a bounded queue, batches, one thread with its own runtime.
//!
//! If a collector is unavailable, slow or broken, spans are dropped and counted, this is logged once, and only this
//! thread waits. Nothing here creates spans, so no export causes another one.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use opentelemetry::Context;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{
        self as sdk, BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, Span, SpanData,
        SpanProcessor,
    },
};
use tokio::runtime::Runtime;

use crate::{config, telemetry::metrics::Metrics};

/// Why no spans are exported.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExportError {
    #[error("no runtime for the exporter")]
    Runtime(#[from] io::Error),
    #[error("no exporter can be created from the settings")]
    Exporter(#[from] ExporterBuildError),
}

pub(super) fn start(
    settings: &config::SpanSettings,
    resource: Resource,
    metrics: &Arc<Metrics>,
) -> Result<SdkTracerProvider, ExportError> {
    let queue = Arc::new(Queue {
        waiting: AtomicUsize::new(0),
        room: settings.queue,
    });
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(settings.queue)
        .with_max_export_batch_size(settings.batch)
        .with_scheduled_delay(settings.delay);
    let sender = Sender::new(settings, queue.clone(), metrics.clone())?;
    let gate = Gate {
        batches: BatchSpanProcessor::new(sender, batches.build()),
        queue,
        metrics: metrics.clone(),
    };
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_span_processor(gate)
        .build())
}

/// The number of queued spans. Counted here, because the SDK, which has the queue, does not report what it drops.
#[derive(Debug)]
struct Queue {
    waiting: AtomicUsize,
    room: usize,
}

impl Queue {
    fn enter(&self) -> bool {
        let one_more = |waiting| (waiting < self.room).then_some(waiting + 1);
        self.waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more)
            .is_ok()
    }

    fn leave(&self, spans: usize) {
        self.waiting.fetch_sub(spans, Ordering::Relaxed);
    }
}

/// Adds spans to the queue while it has space.
#[derive(Debug)]
struct Gate {
    batches: BatchSpanProcessor,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
}

impl SpanProcessor for Gate {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.queue.enter() {
            self.batches.on_end(span);
        } else {
            self.metrics.spans_dropped("queue_full", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// Sends batches, on the SDK's thread for this.
#[derive(Debug)]
struct Sender {
    otlp: SpanExporter,
    /// The HTTP and gRPC clients need one, and the SDK's thread has none. Taken only at the end.
    runtime: Option<Runtime>,
    patience: Duration,
    endpoint: String,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    failing: AtomicBool,
}

impl Sender {
    fn new(
        settings: &config::SpanSettings,
        queue: Arc<Queue>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ExportError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let made = {
            let _in = runtime.enter();
            client(settings)
        };
        let otlp = match made {
            Ok(otlp) => otlp,
            Err(error) => {
                // The caller may be async, where a runtime must not be awaited.
                runtime.shutdown_background();
                return Err(error.into());
            }
        };
        Ok(Self {
            otlp,
            runtime: Some(runtime),
            patience: settings.patience,
            endpoint: settings.endpoint.clone(),
            queue,
            metrics,
            failing: AtomicBool::new(false),
        })
    }

    fn send(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let Some(runtime) = &self.runtime else {
            return Err(OTelSdkError::AlreadyShutdown);
        };
        let export = sdk::SpanExporter::export(&self.otlp, batch);
        let limited = runtime.block_on(async { tokio::time::timeout(self.patience, export).await });
        limited.unwrap_or(Err(OTelSdkError::Timeout(self.patience)))
    }

    /// Logs once when the collector becomes unavailable and once when it is available again.
    fn note(&self, sent: &OTelSdkResult, spans: usize) {
        let endpoint = &self.endpoint;
        match sent {
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(endpoint, "spans are exported again");
            }
            Ok(()) => {}
            Err(error) => {
                self.metrics.spans_dropped("export_failed", spans);
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::warn!(endpoint, %error, "spans cannot be exported; they are dropped and counted until they can");
                }
            }
        }
    }
}

impl sdk::SpanExporter for Sender {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        self.queue.leave(spans);
        let sent = self.send(batch);
        self.note(&sent, spans);
        sent
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // A name server that does not answer must not prevent the daemon from ending.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The SDK reads other settings from the environment: headers.
fn client(settings: &config::SpanSettings) -> Result<SpanExporter, ExporterBuildError> {
    let exporter = SpanExporter::builder();
    match settings.protocol {
        config::Protocol::Http => exporter
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .build(),
        config::Protocol::Grpc => exporter
            .with_tonic()
            .with_endpoint(&settings.endpoint)
            .with_timeout(settings.timeout)
            .build(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use opentelemetry::trace::{Tracer as _, TracerProvider as _};

    use super::*;

    fn settings(endpoint: String) -> config::SpanSettings {
        config::SpanSettings {
            protocol: config::Protocol::Http,
            endpoint,
            service: None,
            timeout: Duration::from_secs(600),
            patience: Duration::from_secs(600),
            delay: Duration::from_millis(1),
            queue: 4,
            batch: 2,
        }
    }

    fn dropped(metrics: &Metrics, reason: &str) -> u64 {
        let line = format!("hawser_spans_dropped_total{{reason=\"{reason}\"}} ");
        let text = metrics.text();
        let mut values = text.lines().filter_map(|l| l.strip_prefix(&line));
        values.next().map_or(0, |value| value.parse().unwrap())
    }

    #[test]
    fn a_collector_that_hangs_costs_the_spans_that_find_no_room() {
        // The kernel accepts the connection, and nobody answers.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/v1/traces", silent.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new());
        let resource = Resource::builder_empty().build();
        let provider = start(&settings(endpoint), resource, &metrics).unwrap();
        let tracer = provider.tracer("test");
        for _ in 0..100 {
            drop(tracer.start("span"));
        }
        // At most one batch of two is in transit, and four wait.
        assert!((94..=96).contains(&dropped(&metrics, "queue_full")));
        assert!(
            provider
                .shutdown_with_timeout(Duration::from_millis(10))
                .is_err()
        );
    }

    #[test]
    fn an_unavailable_collector_costs_only_its_spans() {
        let gone = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = gone.local_addr().unwrap();
        drop(gone);
        let metrics = Arc::new(Metrics::new());
        let resource = Resource::builder_empty().build();
        let endpoint = format!("http://{address}/v1/traces");
        let provider = start(&settings(endpoint), resource, &metrics).unwrap();
        drop(provider.tracer("test").start("span"));
        provider
            .shutdown_with_timeout(Duration::from_secs(600))
            .unwrap();
        assert_eq!(dropped(&metrics, "export_failed"), 1);
    }
}
