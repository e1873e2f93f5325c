//! The daemon's metrics for Prometheus: the only place that knows their names.
//!
//! There are two groups in one registry: [`upstream`] keeps the names, types and meanings that dashboards for the AWS
//! VPC CNI use, [`own`] has the others. No label contains a pod, an address, an id from a caller or an external text,
//! so the node's size bounds the number of series. Only counts; makes no decisions.
//!
//! May use no other folder. Must not know who counts.

mod own;
mod summary;
#[cfg(test)]
mod tests;
mod upstream;

use std::time::Duration;

use planner::Snapshot;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

use crate::config::notices::Notice;

/// Prometheus's text format, which every scraper supports.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// From half a millisecond, the kernel's minimum for one pod, to the longest wait for an address.
const SECONDS: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0,
];

/// Every metric of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    upstream: upstream::Upstream,
    own: own::Own,
}

/// The purpose of an EC2 call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Grow,
    Shrink,
    Observe,
}

impl Purpose {
    fn of(action: &str) -> Self {
        match action {
            "UnassignPrivateIpAddresses"
            | "UnassignIpv6Addresses"
            | "DetachNetworkInterface"
            | "DeleteNetworkInterface" => Self::Shrink,
            action if action.starts_with("Describe") => Self::Observe,
            _ => Self::Grow,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Grow => "grow",
            Self::Shrink => "shrink",
            Self::Observe => "observe",
        }
    }
}

/// The purpose of an EC2 call: `grow`, `shrink` or `observe`.
#[must_use]
pub fn purpose(action: &str) -> &'static str {
    Purpose::of(action).name()
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let registry = Registry::new();
        let mut book = Book(&registry);
        Self {
            upstream: upstream::Upstream::new(&mut book),
            own: own::Own::new(&mut book),
            registry,
        }
    }

    /// An EC2 call starts.
    pub fn ec2_begun(&self, action: &'static str) {
        self.upstream.begun(Purpose::of(action));
    }

    /// It has ended; if it failed, with EC2's error code, `other` or `no_answer`.
    pub fn ec2_ended(&self, action: &'static str, failure: Option<&'static str>, took: Duration) {
        let purpose = Purpose::of(action);
        self.upstream.ended(action, purpose, failure, took);
        self.own.ec2(action, purpose, failure, took);
    }

    /// A request of the plugin was answered: `ok`, or the refusal's reason.
    pub fn request(&self, verb: &'static str, result: &'static str, took: Duration) {
        self.upstream.request(verb, result);
        self.own.request(verb, result, took);
    }

    /// The duration of one stage of a verb.
    pub fn stage(&self, verb: &'static str, stage: &'static str, took: Duration) {
        self.own.stage(verb, stage, took);
    }

    /// An ADD got an address (`granted`) or a reason for none, and what it waited for, `warm` if nothing.
    pub fn waited(&self, outcome: &'static str, reason: &'static str, took: Duration) {
        self.own.waited(outcome, reason, took);
    }

    /// A transaction is durable.
    pub fn committed(&self, took: Duration) {
        self.own.committed(took);
    }

    /// Spans that did not reach the collector: `queue_full`, or `export_failed`.
    pub fn spans_dropped(&self, reason: &'static str, spans: usize) {
        self.own.spans_dropped(reason, spans);
    }

    /// A task of the daemon panicked.
    pub fn task_panicked(&self, task: &'static str) {
        self.own.task_panicked(task);
    }

    pub fn link_removal_failed(&self) {
        self.own.link_removal_failed();
    }

    /// `changes` of objects of this kind repaired a change by others.
    pub fn repaired(&self, kind: &'static str, changes: u64) {
        self.own.repaired(kind, changes);
    }

    /// So many more packets in transit carried mark bits of ENIs although no pod sent them.
    pub fn foreign_marked(&self, packets: u64) {
        self.own.foreign_marked(packets);
    }

    /// The number of filter chains of other programs that drop pods' packets.
    pub fn forwarding_blocked(&self, chains: usize) {
        self.own.forwarding_blocked(chains);
    }

    /// The settings that have no effect, or not the wanted one.
    pub fn settings(&self, notices: &[Notice]) {
        self.own.settings(notices);
    }

    /// The daemon serves; `took` is the time since the process started.
    pub fn ready(&self, took: Duration) {
        self.upstream.ready(took);
        self.own.ready(took);
    }

    /// The current pool. Calculated for a scrape: between scrapes, gauges cost nothing.
    pub fn pool(&self, pool: &Snapshot) {
        self.upstream.pool(pool);
        self.own.pool(pool);
    }

    /// The rate limit of one EC2 action after throttling: calls per second, and the pause before the next call.
    pub fn pace(&self, action: &str, rate: f64, pause: Duration) {
        self.own.pace(action, rate, pause);
    }

    /// Everything, in Prometheus's text format.
    #[must_use]
    pub fn text(&self) -> String {
        TextEncoder::new()
            .encode_to_string(&self.registry.gather())
            .expect("metrics that registered encode")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// Registers metrics. Names are constants in this program: a conflict would show at every start.
struct Book<'a>(&'a Registry);

impl Book<'_> {
    fn enter<M: Collector + Clone + 'static>(&mut self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a metric's name and labels are constants");
        let registered = self.0.register(Box::new(metric.clone()));
        registered.expect("no two metrics have one name");
        metric
    }

    fn counter(&mut self, name: &str, help: &str) -> IntCounter {
        self.enter(IntCounter::new(name, help))
    }

    fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.enter(IntCounterVec::new(Opts::new(name, help), labels))
    }

    fn gauge(&mut self, name: &str, help: &str) -> IntGauge {
        self.enter(IntGauge::new(name, help))
    }

    fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.enter(IntGaugeVec::new(Opts::new(name, help), labels))
    }

    fn rates(&mut self, name: &str, help: &str, labels: &[&str]) -> GaugeVec {
        self.enter(GaugeVec::new(Opts::new(name, help), labels))
    }

    fn rate(&mut self, name: &str, help: &str) -> Gauge {
        self.enter(Gauge::new(name, help))
    }

    fn seconds(&mut self, name: &str, help: &str) -> Histogram {
        self.enter(Histogram::with_opts(buckets(name, help)))
    }

    fn many_seconds(&mut self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.enter(HistogramVec::new(buckets(name, help), labels))
    }
}

fn buckets(name: &str, help: &str) -> HistogramOpts {
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
}
