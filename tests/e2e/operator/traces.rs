//! Spans of a node, as received by a collector; and pods while the collector does not work.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use lab::{
    Lab,
    fakes::otlp_collector::{Collector, Protocol, Span},
    node::{Node, Pod},
    wait::eventually,
};
use serde_json::json;
use vpc_sim::{Action, Fault, SimConfig};

use crate::suite::{Outcome, trials};

trials!(
    a_broken_collector_delays_neither_pods_nor_shutdown,
    a_refused_add_and_the_call_that_failed_it_are_errors,
    a_request_is_a_trace_over_grpc,
    a_request_is_a_trace_over_http,
    settings_that_cannot_be_used_are_named_and_nothing_starts,
    the_last_spans_are_sent_at_the_end,
    without_the_variables_no_server_is_called,
);

const PATIENCE: Duration = Duration::from_secs(40);
const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
/// For a successful ADD.
const STAGES: [&str; 4] = ["turn", "address", "wire", "commit"];
/// Long enough that no batch is sent automatically during a test.
const NEVER: &str = "3600000";

fn listen(node: &Node, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    node.netns().run(|| TcpListener::bind(address))?
}

/// A node that exports to `address`, whose daemon is not started yet. Its three addresses exist; more need EC2.
fn exporting(lab: &Lab, settings: &[(&str, &str)]) -> io::Result<Node> {
    let mut node = lab.bare_node("t3.small", &[("WARM_ENI_TARGET", "0")])?;
    for (name, value) in settings {
        node.set(name, value);
    }
    Ok(node)
}

fn export_to(node: &mut Node, address: SocketAddr) {
    node.set("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"));
}

fn children(collector: &Collector, of: &Span) -> Vec<Span> {
    let mut spans = collector.spans();
    spans.retain(|span| span.span.parent_span_id == of.span.span_id);
    spans.sort_by_key(|span| (span.span.start_time_unix_nano, span.span.end_time_unix_nano));
    spans
}

/// One root span with this name for the container, with these stages one after another and none outside of it.
fn assert_trace(collector: &Collector, name: &str, id: &str, stages: &[&str]) -> Span {
    let mut roots = collector.named(name);
    roots.retain(|root| root.told("container.id").as_deref() == Some(&id[..12]));
    assert_eq!(roots.len(), 1, "{name} {id}: {roots:?}");
    let root = roots.remove(0);
    assert!(root.span.parent_span_id.is_empty(), "{root:?}");
    let parts = children(collector, &root);
    let found: Vec<_> = parts.iter().map(|part| part.span.name.as_str()).collect();
    assert_eq!(found, stages, "{name} {id}");
    let mut from = root.span.start_time_unix_nano;
    for part in &parts {
        assert_eq!(part.span.trace_id, root.span.trace_id);
        assert!(from <= part.span.start_time_unix_nano, "{parts:?}");
        assert!(part.span.start_time_unix_nano <= part.span.end_time_unix_nano);
        from = part.span.end_time_unix_nano;
    }
    assert!(from <= root.span.end_time_unix_nano, "{root:?}");
    root
}

fn pod_id(n: usize) -> String {
    format!("{n:012}{}", &ID[12..])
}

fn a_request_is_a_trace_over_http() -> Outcome {
    a_request_is_a_trace(Protocol::Http, "http/protobuf")
}

fn a_request_is_a_trace_over_grpc() -> Outcome {
    a_request_is_a_trace(Protocol::Grpc, "grpc")
}

fn a_request_is_a_trace(protocol: Protocol, name: &str) -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", name),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x"),
        (
            "OTEL_RESOURCE_ATTRIBUTES",
            "deployment.environment.name=lab",
        ),
        ("OTEL_BSP_SCHEDULE_DELAY", "50"),
    ];
    let mut node = exporting(&lab, &settings)?;
    let collector = Collector::start(listen(&node, 0)?, protocol)?;
    export_to(&mut node, collector.address);
    let before = ipamd::runtime::clock::wall_seconds();
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    // The fourth must wait for an ENI.
    let pods: io::Result<Vec<Pod>> = (0..4).map(|n| node.add_pod(&pod_id(n))).collect();
    for pod in pods? {
        node.delete_pod(pod)?;
    }
    let arrived = |name: &str, count| eventually(PATIENCE, || collector.named(name).len() == count);
    assert!(arrived("ADD", 4) && arrived("DEL", 4), "{}", node.log());
    for id in (0..4).map(pod_id) {
        let added = assert_trace(&collector, "ADD", &id, &STAGES);
        let deleted = assert_trace(&collector, "DEL", &id, &["turn", "unwire", "commit"]);
        for root in [added, deleted] {
            assert_root(&root, &node, &id);
            let seconds = i64::try_from(root.span.start_time_unix_nano / 1_000_000_000)?;
            assert!((before..=ipamd::runtime::clock::wall_seconds()).contains(&seconds));
        }
    }
    let last = assert_trace(&collector, "ADD", &pod_id(3), &STAGES);
    assert_eq!(last.told("hawser.waited_for").as_deref(), Some("create"));
    for (action, purpose) in [
        ("DescribeNetworkInterfaces", "observe"),
        ("CreateNetworkInterface", "grow"),
        ("AttachNetworkInterface", "grow"),
    ] {
        let calls = collector.named(&format!("EC2/{action}"));
        let call = calls.first().ok_or(format!("no {action}"))?;
        assert_eq!(call.told("rpc.method").as_deref(), Some(action));
        assert_eq!(call.told("hawser.purpose").as_deref(), Some(purpose));
        assert_eq!(call.error(), None);
        assert!(call.span.parent_span_id.is_empty());
    }
    let secrets = collector.secrets();
    assert!(
        secrets.iter().all(|secret| secret == "Bearer x"),
        "{secrets:?}"
    );
    assert!(!node.log().contains("Bearer"), "{}", node.log());
    Ok(())
}

fn assert_root(root: &Span, node: &Node, id: &str) {
    for (key, value) in [
        ("hawser.result", "ok"),
        ("k8s.namespace.name", "lab"),
        ("k8s.pod.name", &format!("pod-{id}")),
    ] {
        assert_eq!(root.told(key).as_deref(), Some(value), "{root:?}");
    }
    assert_eq!(root.error(), None);
    for (key, value) in [
        ("service.name", "hawser-ipamd"),
        ("cloud.provider", "aws"),
        ("host.id", &node.instance.id.to_string()),
        ("host.type", "t3.small"),
        ("deployment.environment.name", "lab"),
    ] {
        assert_eq!(root.from(key).as_deref(), Some(value), "{key}");
    }
    let (region, zone) = (
        root.from("cloud.region"),
        root.from("cloud.availability_zone"),
    );
    let region = region.expect("every node is in a region");
    assert_eq!(zone, Some(format!("{region}a")));
}

fn a_refused_add_and_the_call_that_failed_it_are_errors() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = exporting(&lab, &[("OTEL_BSP_SCHEDULE_DELAY", "50")])?;
    let collector = Collector::start(listen(&node, 0)?, Protocol::Http)?;
    export_to(&mut node, collector.address);
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    for n in 0..3 {
        node.add_pod(&pod_id(n))?;
    }
    let code = "InsufficientFreeAddressesInSubnet";
    lab.sim
        .faults()
        .push(Fault::error(Action::CreateNetworkInterface, 1000, code));
    let (_netns, path) = node.sandbox(ID)?;
    let refused = node
        .invocation("ADD", ID, Some(&path))
        .conf("deadlineSeconds", json!(3))
        .run(node.netns())?;
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    assert!(eventually(PATIENCE, || collector.named("ADD").len() == 4));
    let root = assert_trace(&collector, "ADD", ID, &["turn", "address"]);
    let reason = Some("SUBNET_EXHAUSTED");
    assert_eq!(root.told("hawser.result").as_deref(), reason);
    assert_eq!(root.told("error.type").as_deref(), reason);
    let cause = root.error().expect("a refusal is an error");
    assert!(refused.error_text().contains(cause), "{cause}: {refused:?}");
    let calls = collector.named("EC2/CreateNetworkInterface");
    let call = calls.first().expect("EC2 was asked");
    assert_eq!(call.told("error.type").as_deref(), Some(code));
    assert!(call.error().is_some());
    Ok(())
}

fn the_last_spans_are_sent_at_the_end() -> Outcome {
    for (protocol, name) in [(Protocol::Http, "http/protobuf"), (Protocol::Grpc, "grpc")] {
        let lab = Lab::start(SimConfig::default())?;
        let settings = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", name),
            ("OTEL_BSP_SCHEDULE_DELAY", NEVER),
        ];
        let mut node = exporting(&lab, &settings)?;
        let collector = Collector::start(listen(&node, 0)?, protocol)?;
        export_to(&mut node, collector.address);
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        node.add_pod(ID)?;
        assert!(collector.spans().is_empty());
        assert!(node.stop_daemon()?, "{}", node.log());
        assert_trace(&collector, "ADD", ID, &STAGES);
    }
    Ok(())
}

/// Unavailable, silent, or answering 500: every limit of the exporter is an hour, so anything that waited for one would
/// not end.
fn a_broken_collector_delays_neither_pods_nor_shutdown() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    for (protocol, kind) in [
        ("http/protobuf", "away"),
        ("http/protobuf", "silent"),
        ("http/protobuf", "broken"),
        ("grpc", "away"),
        ("grpc", "silent"),
    ] {
        let settings = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", NEVER),
            ("OTEL_BSP_EXPORT_TIMEOUT", NEVER),
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
            ("IP_COOLDOWN_PERIOD", "0"),
        ];
        let mut node = exporting(&lab, &settings)?;
        let listener = listen(&node, 0)?;
        export_to(&mut node, listener.local_addr()?);
        let mut silent = None;
        let mut broken = None;
        match kind {
            "silent" => silent = Some(listener),
            "broken" => broken = Some(Collector::broken(listener)?),
            _ => drop(listener),
        }
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        for n in 0..12 {
            node.delete_pod(node.add_pod(&pod_id(n))?)?;
        }
        assert_dropped(&node, kind);
        let ended = node.stop_daemon()?;
        assert!(ended, "{kind}: {}", node.log());
        let words = node.log().matches("spans cannot be exported").count();
        assert!(words <= 1, "{kind}: {}", node.log());
        drop((silent, broken));
    }
    Ok(())
}

/// Spans without space behind a hanging batch are dropped, and so are spans that could not be sent.
fn assert_dropped(node: &Node, kind: &str) {
    let reason = match kind {
        "silent" => "queue_full",
        _ => "export_failed",
    };
    let counter = format!("hawser_spans_dropped_total{{reason=\"{reason}\"}} ");
    let counted = || node.metric(&counter).is_ok_and(|count| count > 0);
    assert!(eventually(PATIENCE, counted), "{kind}: {}", node.log());
}

fn settings_that_cannot_be_used_are_named_and_nothing_starts() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let wrong = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("WARM_ENI_TARGET", "one"),
    ];
    let mut node = lab.bare_node("t3.small", &wrong)?;
    let output = node.run_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(output.status.code(), Some(64), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    for (name, value) in wrong {
        assert!(
            said.contains(&format!("{name}={value}: expected ")),
            "{said}"
        );
    }
    Ok(())
}

fn without_the_variables_no_server_is_called() -> Outcome {
    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    let lab = Lab::start(SimConfig::default())?;
    for settings in [
        &[][..],
        &[("OTEL_SDK_DISABLED", "true"), ENDPOINT],
        &[("OTEL_TRACES_SAMPLER", "always_off"), ENDPOINT],
    ] {
        let mut node = exporting(&lab, settings)?;
        // The conventional ports of collectors.
        let listeners = [listen(&node, 4317)?, listen(&node, 4318)?];
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let pod = node.add_pod(ID)?;
        node.delete_pod(pod)?;
        // A sampler that takes no samples implies that an endpoint is set.
        let on = settings.iter().any(|(name, _)| name.ends_with("SAMPLER"));
        assert_eq!(has_exporter(&node)?, on, "{settings:?}");
        assert!(node.stop_daemon()?);
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let called = listener.accept().map(|(_, from)| from);
            let nobody = |error: io::Error| error.kind() == io::ErrorKind::WouldBlock;
            assert!(called.map_err(nobody) == Err(true), "somebody called");
        }
    }
    Ok(())
}

/// The exporter is a thread of the daemon.
fn has_exporter(node: &Node) -> io::Result<bool> {
    let mut found = false;
    for thread in std::fs::read_dir(format!("/proc/{}/task", node.pid()))? {
        let name = std::fs::read_to_string(thread?.path().join("comm"))?;
        found |= name.starts_with("OpenTelemetry");
    }
    Ok(found)
}
