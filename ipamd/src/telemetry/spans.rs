//! Spans of requests and of EC2 calls: when they are created, their names and attributes, by OpenTelemetry's semantic
//! conventions. [`export`] sends them to a collector.
//!
//! If tracing is off, a handle is `None` and every call returns immediately: nothing is allocated, locked or read. If
//! it is on, a span costs a few allocations and a place in a bounded queue, and nothing waits. Container ids are
//! shortened, as in introspection; spans contain no addresses.
//!
//! May use `config`, `runtime` and the rest of `telemetry`. Must not know the parts that it traces.

mod export;
#[cfg(test)]
mod tests;

use std::{future::poll_fn, pin::pin, sync::Arc, time::Duration};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::{SdkTracer, SdkTracerProvider},
};
use planner::{Mono, Pod, Sandbox};
use proto::{error_chain::chain, refusal::Refusal};

use crate::{
    config,
    node::identity::Identity,
    runtime::clock::Anchor,
    telemetry::{
        history::short,
        metrics::{self, Metrics},
    },
};

const SERVICE: &str = "hawser-ipamd";
/// How long the daemon's shutdown waits for the last spans.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);

/// The source of the spans.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub me: &'a Identity,
    pub zone: Option<&'a str>,
    /// The Node's name, if known.
    pub node: Option<&'a str>,
}

/// A handle for the export of spans; off by default.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<On>>);

#[derive(Debug)]
struct On {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
    clock: fn() -> Anchor,
}

/// A request's span, from its start to its answer.
#[derive(Debug)]
pub struct Request(Context);

/// What a request's stages need to know about it; passed as a value in its context.
#[derive(Debug)]
struct Root {
    anchor: Anchor,
    /// The shortened id of the request's container; empty if there are many.
    container: String,
}

/// An EC2 call that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Ec2Call<'a> {
    pub action: &'static str,
    pub took: Duration,
    /// How long the node's own budget delayed it.
    pub paced: Duration,
    pub failure: Option<Ec2CallFailure<'a>>,
}

/// Why an EC2 call failed.
#[derive(Clone, Copy, Debug)]
pub struct Ec2CallFailure<'a> {
    /// EC2's error code, or `no_answer`.
    pub code: &'a str,
    pub message: &'a str,
    /// When the call can be retried, if it was throttled.
    pub retry_after: Option<Duration>,
}

impl Spans {
    /// Starts the export. If this fails, the node serves pods anyway.
    #[must_use]
    pub fn start(
        settings: &config::SpanSettings,
        origin: Origin<'_>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let service = settings.service.as_deref();
        match export::start(settings, resource(service, origin), metrics) {
            Ok(provider) => {
                tracing::info!(
                    endpoint = settings.endpoint,
                    protocol = settings.protocol.name(),
                    "exporting spans"
                );
                Self::over(provider, Anchor::now)
            }
            Err(error) => {
                tracing::error!(
                    error = chain(&error),
                    "spans cannot be exported; continuing without them"
                );
                Self::default()
            }
        }
    }

    fn over(provider: SdkTracerProvider, clock: fn() -> Anchor) -> Self {
        Self(Some(Arc::new(On {
            tracer: provider.tracer("hawser"),
            provider,
            clock,
        })))
    }

    /// Starts a request's span. `None` if it is not recorded; then its stages are not recorded either.
    #[must_use]
    pub fn request(&self, verb: &'static str, container: &str, begun: Mono) -> Option<Request> {
        let on = self.0.as_deref()?;
        let anchor = (on.clock)();
        let container = short(container).to_owned();
        let span = on
            .tracer
            .span_builder(title(verb))
            .with_kind(SpanKind::Server)
            .with_start_time(anchor.wall_at(begun))
            .with_attributes(of_container(&container))
            .start_with_context(&on.tracer, &Context::new());
        let root = Root { anchor, container };
        span.is_recording()
            .then(|| Request(Context::new().with_value(root).with_span(span)))
    }

    /// Records a stage of the caller's current request, if there is one.
    pub fn stage(&self, stage: &'static str, container: &str, begun: Mono, ended: Mono) {
        let Some(on) = self.0.as_deref() else {
            return;
        };
        Context::map_current(|request| {
            let Some(Root { anchor, .. }) = request.get() else {
                return;
            };
            let mut span = on
                .tracer
                .span_builder(stage)
                .with_start_time(anchor.wall_at(begun))
                .with_attributes(of_container(short(container)))
                .start_with_context(&on.tracer, request);
            span.end_with_timestamp(anchor.wall_at(ended));
        });
    }

    /// Sets the pod of the caller's current request. A request for many pods has none.
    pub fn pod(&self, sandbox: &Sandbox, pod: &Pod) {
        if self.0.is_none() {
            return;
        }
        Context::map_current(|request| {
            let ours = |root: &&Root| root.container == short(&sandbox.container_id);
            if request.get().filter(ours).is_none() {
                return;
            }
            let names = [
                ("k8s.namespace.name", &pod.namespace),
                ("k8s.pod.name", &pod.name),
                ("k8s.pod.uid", &pod.uid),
            ];
            let known = names
                .into_iter()
                .filter_map(|(key, name)| Some(KeyValue::new(key, name.clone()?)));
            request.span().set_attributes(known);
        });
    }

    /// Adds an attribute to the caller's current request.
    pub fn set_attribute(&self, key: &'static str, value: &'static str) {
        if self.0.is_some() {
            Context::map_current(|request| {
                request.span().set_attribute(KeyValue::new(key, value));
            });
        }
    }

    /// Records an EC2 call. The pool makes it for many pods, so it belongs to no request.
    pub fn ec2_call(&self, call: &Ec2Call<'_>) {
        let Some(on) = self.0.as_deref() else {
            return;
        };
        let ended = (on.clock)().wall;
        let begun = ended.checked_sub(call.took).unwrap_or(ended);
        let mut attributes = vec![
            KeyValue::new("rpc.system", "aws-api"),
            KeyValue::new("rpc.service", "EC2"),
            KeyValue::new("rpc.method", call.action),
            KeyValue::new("hawser.purpose", metrics::purpose(call.action)),
        ];
        if !call.paced.is_zero() {
            attributes.push(KeyValue::new("hawser.paced_ms", milliseconds(call.paced)));
        }
        let mut status = Status::Unset;
        if let Some(failure) = call.failure {
            attributes.push(KeyValue::new("error.type", failure.code.to_owned()));
            if let Some(after) = failure.retry_after {
                attributes.push(KeyValue::new("hawser.retry_after_ms", milliseconds(after)));
            }
            status = Status::error(failure.message.to_owned());
        }
        let mut span = on
            .tracer
            .span_builder(format!("EC2/{}", call.action))
            .with_kind(SpanKind::Client)
            .with_start_time(begun)
            .with_attributes(attributes)
            .start_with_context(&on.tracer, &Context::new());
        span.set_status(status);
        span.end_with_timestamp(ended);
    }

    /// Sends queued spans and ends the export. Blocks, but not for long.
    pub fn finish(&self) {
        if let Some(on) = self.0.as_deref() {
            on.finish();
        }
    }
}

impl On {
    fn finish(&self) {
        // Whether the last batch was sent is logged where batches are sent.
        drop(self.provider.shutdown_with_timeout(FLUSH_LIMIT));
    }
}

impl Drop for On {
    /// For a start that fails half-way: otherwise the SDK's own limit would apply, which is longer.
    fn drop(&mut self) {
        self.finish();
    }
}

impl Request {
    /// Ends the span with the answer.
    pub fn answered(self, at: Mono, refusal: Option<&Refusal>) {
        let span = self.0.span();
        let result = refusal.map_or("ok", |refusal| refusal.reason.as_str_name());
        span.set_attribute(KeyValue::new("hawser.result", result));
        if let Some(refusal) = refusal {
            span.set_attribute(KeyValue::new("error.type", result));
            if let Some(after) = refusal.retry_after {
                span.set_attribute(KeyValue::new("hawser.retry_after_ms", milliseconds(after)));
            }
            span.set_status(Status::error(refusal.cause.clone()));
        }
        if let Some(root) = self.0.get::<Root>() {
            span.end_with_timestamp(root.anchor.wall_at(at));
        }
    }
}

/// Runs `work` as part of `request`: its stages become the request's. Work on other threads is not included.
pub async fn within<T>(request: Option<&Request>, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|task| {
        let _during = request.map(|Request(context)| context.clone().attach());
        work.as_mut().poll(task)
    })
    .await
}

/// A verb as written in the CNI specification.
fn title(verb: &'static str) -> &'static str {
    match verb {
        "add" => "ADD",
        "del" => "DEL",
        "check" => "CHECK",
        "gc" => "GC",
        other => other,
    }
}

fn of_container(short: &str) -> Vec<KeyValue> {
    let known = Some(short).filter(|id| !id.is_empty());
    let attributes = known.map(|id| KeyValue::new("container.id", id.to_owned()));
    attributes.into_iter().collect()
}

/// `OTEL_RESOURCE_ATTRIBUTES` overrides what we know, and `OTEL_SERVICE_NAME` overrides both.
fn resource(service: Option<&str>, origin: Origin<'_>) -> Resource {
    let Origin { me, zone, node } = origin;
    let known = [
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("cloud.provider", Some("aws")),
        ("cloud.region", Some(&me.region)),
        ("cloud.availability_zone", zone),
        ("host.id", Some(&me.instance)),
        ("host.type", Some(&me.instance_type)),
        ("k8s.node.name", node),
    ];
    let known = known
        .into_iter()
        .filter_map(|(key, value)| Some(KeyValue::new(key, value?.to_owned())));
    let resource = Resource::builder_empty()
        .with_service_name(SERVICE)
        .with_attributes(known)
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match service {
        Some(name) => resource.with_service_name(name.to_owned()).build(),
        None => resource.build(),
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
