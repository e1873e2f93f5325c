//! The contents of spans, as a collector receives them.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{SimpleSpanProcessor, SpanData, SpanExporter},
};
use proto::v1::Reason;

use super::*;
use crate::telemetry::recorder::Recorder;

const ID: &str = "0123456789abcdef0123456789abcdef";

/// Boot was 100 s ago when the wall clock was at 1000 s.
fn clock() -> Anchor {
    Anchor {
        mono: at(100_000),
        wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1000),
    }
}

fn at(milliseconds: u64) -> Mono {
    Mono::from_epoch(Duration::from_millis(milliseconds))
}

#[derive(Clone, Debug, Default)]
struct Collector(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let mut spans = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.extend(batch);
        Ok(())
    }
}

impl Collector {
    fn recorder(&self) -> Recorder {
        let provider = SdkTracerProvider::builder()
            .with_span_processor(SimpleSpanProcessor::new(self.clone()))
            .build();
        Recorder {
            spans: Spans::over(provider, clock),
            ..Recorder::default()
        }
    }

    fn spans(&self) -> Vec<SpanData> {
        self.0.lock().unwrap().clone()
    }

    fn one(&self, name: &str) -> SpanData {
        let mut spans = self.spans();
        spans.retain(|span| span.name == name);
        assert_eq!(spans.len(), 1, "{name} in {spans:?}");
        spans.remove(0)
    }
}

fn attribute(span: &SpanData, key: &str) -> Option<String> {
    let mut found = span.attributes.iter().filter(|a| a.key.as_str() == key);
    let value = found.next().map(|a| a.value.to_string());
    assert!(found.next().is_none(), "{key} twice in {span:?}");
    value
}

/// The span's start and end in milliseconds of the wall clock.
fn times(span: &SpanData) -> (u128, u128) {
    let since = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        since.as_millis()
    };
    (since(span.start_time), since(span.end_time))
}

fn sandbox() -> Sandbox {
    Sandbox {
        network: "n".into(),
        container_id: ID.into(),
        ifname: "eth0".into(),
    }
}

fn pod() -> Pod {
    Pod {
        namespace: Some("shop".into()),
        name: Some("cart-0".into()),
        uid: None,
    }
}

/// An ADD that waits 40 ms for its guard, in two polls, and is answered 60 ms after its start.
async fn add(recorder: &Recorder, refusal: Option<&Refusal>) {
    let begun = at(99_990);
    let request = recorder.spans.request("add", ID, begun);
    let work = async {
        recorder.spans.pod(&sandbox(), &pod());
        tokio::task::yield_now().await;
        recorder.stage("add", "turn", &sandbox(), begun, at(100_030));
    };
    within(request.as_ref(), work).await;
    recorder.answered("add", ID, (begun, at(100_050)), refusal, request);
}

#[tokio::test]
async fn a_request_is_one_trace_with_its_stages_in_wall_time() {
    let collector = Collector::default();
    add(&collector.recorder(), None).await;
    let (root, turn) = (collector.one("ADD"), collector.one("turn"));
    assert_eq!(root.parent_span_id, SpanId::INVALID);
    assert_ne!(root.span_context.trace_id(), TraceId::INVALID);
    assert_eq!(turn.parent_span_id, root.span_context.span_id());
    assert_eq!(turn.span_context.trace_id(), root.span_context.trace_id());
    assert_eq!(times(&root), (999_990, 1_000_050));
    assert_eq!(times(&turn), (999_990, 1_000_030));
    for (key, value) in [
        ("container.id", Some(&ID[..12])),
        ("k8s.namespace.name", Some("shop")),
        ("k8s.pod.name", Some("cart-0")),
        ("k8s.pod.uid", None),
        ("hawser.result", Some("ok")),
        ("error.type", None),
    ] {
        assert_eq!(attribute(&root, key).as_deref(), value, "{key}");
    }
    assert_eq!(root.status, Status::Unset);
}

#[tokio::test]
async fn a_refusal_is_an_error_with_its_reason_and_cause() {
    let collector = Collector::default();
    let retry = Some(Duration::from_secs(3));
    let refusal = Refusal::new(Reason::PoolEmpty, "no address in 3 s", "wait", retry);
    add(&collector.recorder(), Some(&refusal)).await;
    let root = collector.one("ADD");
    assert_eq!(root.status, Status::error("no address in 3 s"));
    assert_eq!(
        attribute(&root, "hawser.result").as_deref(),
        Some("POOL_EMPTY")
    );
    assert_eq!(
        attribute(&root, "error.type").as_deref(),
        Some("POOL_EMPTY")
    );
    assert_eq!(
        attribute(&root, "hawser.retry_after_ms").as_deref(),
        Some("3000")
    );
}

#[tokio::test]
async fn a_request_about_many_pods_names_them_at_its_stages_only() {
    let collector = Collector::default();
    let recorder = collector.recorder();
    let request = recorder.spans.request("gc", "", at(100_000));
    within(request.as_ref(), async {
        recorder.spans.pod(&sandbox(), &pod());
        recorder.stage("del", "unwire", &sandbox(), at(100_001), at(100_002));
    })
    .await;
    recorder.answered("gc", "", (at(100_000), at(100_003)), None, request);
    let (root, stage) = (collector.one("GC"), collector.one("unwire"));
    assert_eq!(attribute(&root, "container.id"), None);
    assert_eq!(attribute(&root, "k8s.pod.name"), None);
    assert_eq!(
        attribute(&stage, "container.id").as_deref(),
        Some(&ID[..12])
    );
}

/// The sweep deletes sandboxes without a request.
#[tokio::test]
async fn stages_of_no_request_are_no_spans() {
    let collector = Collector::default();
    let recorder = collector.recorder();
    recorder.stage("del", "unwire", &sandbox(), at(100_001), at(100_002));
    assert!(collector.spans().is_empty(), "{:?}", collector.spans());
    // A request's context does not outlast its work on a thread either.
    add(&recorder, None).await;
    let spans = collector.spans().len();
    recorder.stage("del", "unwire", &sandbox(), at(100_001), at(100_002));
    assert_eq!(collector.spans().len(), spans);
}

#[test]
fn an_ec2_call_has_its_purpose_error_and_retry_time() {
    let collector = Collector::default();
    let spans = collector.recorder().spans;
    let failure = Ec2CallFailure {
        code: "RequestLimitExceeded",
        message: "Request limit exceeded.",
        retry_after: Some(Duration::from_secs(2)),
    };
    spans.ec2_call(&Ec2Call {
        action: "CreateNetworkInterface",
        took: Duration::from_millis(80),
        paced: Duration::from_millis(500),
        failure: Some(failure),
    });
    let span = collector.one("EC2/CreateNetworkInterface");
    assert_eq!(span.span_kind, SpanKind::Client);
    assert_eq!(times(&span), (999_920, 1_000_000));
    assert_eq!(span.status, Status::error("Request limit exceeded."));
    for (key, value) in [
        ("rpc.system", "aws-api"),
        ("rpc.service", "EC2"),
        ("rpc.method", "CreateNetworkInterface"),
        ("hawser.purpose", "grow"),
        ("hawser.paced_ms", "500"),
        ("hawser.retry_after_ms", "2000"),
        ("error.type", "RequestLimitExceeded"),
    ] {
        assert_eq!(attribute(&span, key).as_deref(), Some(value), "{key}");
    }
}

/// If tracing is off, nothing can be allocated, locked or measured: a handle is one null pointer.
#[tokio::test]
async fn off_a_handle_is_one_null_pointer_and_a_request_nothing() {
    assert_eq!(size_of::<Spans>(), size_of::<usize>());
    let recorder = Recorder::default();
    assert!(recorder.spans.0.is_none());
    assert!(recorder.spans.request("add", ID, at(100_000)).is_none());
    add(&recorder, None).await;
    recorder.spans.finish();
}

#[test]
fn the_resource_follows_the_semantic_conventions() {
    let me = Identity {
        instance: "i-1".into(),
        instance_type: "m5.large".into(),
        region: "eu-west-1".into(),
        mac: planner::Mac([2, 0, 0, 0, 0, 1]),
        address: [10, 0, 0, 4].into(),
        subnet: "subnet-1".into(),
        subnet_cidr: "10.0.0.0/24".parse().unwrap(),
        security_groups: Vec::new(),
    };
    let origin = Origin {
        me: &me,
        zone: Some("eu-west-1b"),
        node: None,
    };
    let resource = resource(None, origin);
    let attribute = |key: &'static str| resource.get(&key.into()).map(|value| value.to_string());
    for (key, value) in [
        ("service.name", Some("hawser-ipamd")),
        ("service.version", Some(env!("CARGO_PKG_VERSION"))),
        ("cloud.provider", Some("aws")),
        ("cloud.region", Some("eu-west-1")),
        ("cloud.availability_zone", Some("eu-west-1b")),
        ("host.id", Some("i-1")),
        ("host.type", Some("m5.large")),
        ("k8s.node.name", None),
    ] {
        assert_eq!(attribute(key).as_deref(), value, "{key}");
    }
    let named = super::resource(Some("my-cni"), origin);
    assert_eq!(
        named.get(&"service.name".into()).map(|v| v.to_string()),
        Some("my-cni".into())
    );
}
