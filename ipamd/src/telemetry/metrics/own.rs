//! Hawser's own metrics, for which the AWS VPC CNI has no name.

use std::time::Duration;

use planner::{Snapshot, placement::Closed, snapshot::Phase};
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::{Book, Purpose};
use crate::config::notices::{Kind, Notice};

#[derive(Debug)]
pub(super) struct Own {
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    stage_seconds: HistogramVec,
    wait_seconds: HistogramVec,
    commit_seconds: Histogram,
    link_removal_failures: IntCounter,
    repairs: IntCounterVec,
    ec2_calls: IntCounterVec,
    ec2_seconds: HistogramVec,
    ec2_rate: GaugeVec,
    ec2_pause: GaugeVec,
    enis: IntGaugeVec,
    closed_enis: IntGaugeVec,
    open_subnets: IntGauge,
    addresses: IntGaugeVec,
    waiting: IntGauge,
    pod_limit: IntGauge,
    short: IntGauge,
    over: IntGauge,
    in_flight: IntGauge,
    spans_dropped: IntCounterVec,
    task_panics: IntCounterVec,
    setting_notices: IntGaugeVec,
    foreign_marked: IntCounter,
    forwarding_blocked: IntGauge,
    start_seconds: Gauge,
}

impl Own {
    #[rustfmt::skip] // one line per metric, as a table
    pub(super) fn new(book: &mut Book<'_>) -> Self {
        let build = book.gauges("hawser_build_info", "Version of this build", &["version"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Self {
            requests: book.counters("hawser_requests_total", "Requests by verb and result", &["verb", "result"]),
            request_seconds: book.many_seconds("hawser_request_seconds", "Duration from request to answer", &["verb"]),
            stage_seconds: book.many_seconds("hawser_stage_seconds", "Duration of the stages of a request", &["verb", "stage"]),
            wait_seconds: book.many_seconds("hawser_address_wait_seconds", "How long ADDs waited for an address, by outcome and reason", &["outcome", "reason"]),
            commit_seconds: book.seconds("hawser_store_commit_seconds", "Duration of one transaction"),
            link_removal_failures: book.counter("hawser_link_removal_failures_total", "Links not removed after DEL"),
            repairs: book.counters(
                "hawser_repairs_total",
                "Changes that repaired the node's network after others changed it",
                &["kind"],
            ),
            ec2_calls: book.counters("hawser_ec2_calls_total", "EC2 calls by action, purpose and result", &["action", "purpose", "result"]),
            ec2_seconds: book.many_seconds("hawser_ec2_call_seconds", "Duration of EC2 calls", &["action"]),
            ec2_rate: book.rates("hawser_ec2_rate", "Calls per second that this node's limiter allows", &["action"]),
            ec2_pause: book.rates("hawser_ec2_pause_seconds", "Time until the next call is allowed after throttling", &["action"]),
            enis: book.gauges("hawser_enis", "ENIs by phase", &["phase"]),
            closed_enis: book.gauges("hawser_closed_enis", "ENIs that get no more pods, by reason", &["reason"]),
            open_subnets: book.gauge("hawser_open_subnets", "Subnets in which the node may create ENIs"),
            addresses: book.gauges("hawser_addresses", "Pod addresses by state", &["state"]),
            waiting: book.gauge("hawser_waiting_adds", "ADDs that wait for an address"),
            pod_limit: book.gauge("hawser_pod_limit", "Maximum number of pods with their own address"),
            short: book.gauge("hawser_pool_short", "Addresses missing for the warm target"),
            over: book.gauge("hawser_pool_over", "Addresses or prefixes above the warm target"),
            in_flight: book.gauge("hawser_pool_in_flight", "Pending commands of the pool"),
            spans_dropped: book.counters("hawser_spans_dropped_total", "Spans that did not reach the collector", &["reason"]),
            task_panics: book.counters("hawser_task_panics_total", "Tasks of the daemon that panicked", &["task"]),
            setting_notices: book.gauges("hawser_setting_notices", "Settings that are ignored, not served or not known", &["kind"]),
            foreign_marked: book.counter("hawser_foreign_marked_packets_total", "Packets in transit, not from pods, with mark bits of ENIs"),
            forwarding_blocked: book.gauge("hawser_forwarding_blocked", "Filter chains of other programs that drop pods' packets, by way of the packets"),
            start_seconds: book.rate("hawser_start_seconds", "Time from the start of the process until it serves"),
        }
    }

    pub(super) fn request(&self, verb: &str, result: &str, took: Duration) {
        self.requests.with_label_values(&[verb, result]).inc();
        self.request_seconds
            .with_label_values(&[verb])
            .observe(took.as_secs_f64());
    }

    pub(super) fn stage(&self, verb: &str, stage: &str, took: Duration) {
        self.stage_seconds
            .with_label_values(&[verb, stage])
            .observe(took.as_secs_f64());
    }

    pub(super) fn waited(&self, outcome: &str, reason: &str, took: Duration) {
        self.wait_seconds
            .with_label_values(&[outcome, reason])
            .observe(took.as_secs_f64());
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    pub(super) fn repaired(&self, kind: &'static str, changes: u64) {
        self.repairs.with_label_values(&[kind]).inc_by(changes);
    }

    pub(super) fn link_removal_failed(&self) {
        self.link_removal_failures.inc();
    }

    pub(super) fn spans_dropped(&self, reason: &str, spans: usize) {
        let spans = u64::try_from(spans).unwrap_or(u64::MAX);
        self.spans_dropped
            .with_label_values(&[reason])
            .inc_by(spans);
    }

    pub(super) fn task_panicked(&self, task: &str) {
        self.task_panics.with_label_values(&[task]).inc();
    }

    pub(super) fn foreign_marked(&self, packets: u64) {
        self.foreign_marked.inc_by(packets);
    }

    pub(super) fn forwarding_blocked(&self, chains: usize) {
        self.forwarding_blocked
            .set(i64::try_from(chains).unwrap_or(i64::MAX));
    }

    pub(super) fn settings(&self, notices: &[Notice]) {
        for kind in Kind::ALL {
            let count = notices.iter().filter(|notice| notice.kind == kind).count();
            self.setting_notices
                .with_label_values(&[kind.name()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn ready(&self, took: Duration) {
        self.start_seconds.set(took.as_secs_f64());
    }

    pub(super) fn ec2(
        &self,
        action: &str,
        purpose: Purpose,
        failure: Option<&'static str>,
        took: Duration,
    ) {
        let labels = [action, purpose.name(), failure.unwrap_or("ok")];
        self.ec2_calls.with_label_values(&labels).inc();
        self.ec2_seconds
            .with_label_values(&[action])
            .observe(took.as_secs_f64());
    }

    pub(super) fn pace(&self, action: &str, rate: f64, pause: Duration) {
        self.ec2_rate.with_label_values(&[action]).set(rate);
        self.ec2_pause
            .with_label_values(&[action])
            .set(pause.as_secs_f64());
    }

    pub(super) fn pool(&self, pool: &Snapshot) {
        let t = &pool.totals;
        let by_state = [
            ("free", t.free),
            ("reserved", t.reserved),
            ("assigned", t.assigned),
            ("cooling", t.cooling),
            ("quarantined", t.quarantined),
            ("releasing", t.releasing),
            ("withheld", t.withheld),
        ];
        for (state, count) in by_state {
            self.addresses.with_label_values(&[state]).set(count.into());
        }
        for phase in Phase::ALL {
            let count = pool.enis.iter().filter(|eni| eni.phase == phase).count();
            self.enis
                .with_label_values(&[phase.name()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        for reason in Closed::ALL {
            let closed = pool.enis.iter().filter(|eni| eni.closed == Some(reason));
            self.closed_enis
                .with_label_values(&[reason.name()])
                .set(i64::try_from(closed.count()).unwrap_or(i64::MAX));
        }
        let open = i64::try_from(pool.places.open.len()).unwrap_or(i64::MAX);
        self.open_subnets.set(open);
        self.waiting.set(t.waiting.into());
        self.pod_limit.set(pool.limit.addresses.into());
        self.short.set(pool.targets.short.into());
        self.over.set(pool.targets.over.into());
        let in_flight = i64::try_from(pool.calls.len()).unwrap_or(i64::MAX);
        self.in_flight.set(in_flight);
    }
}
