//! What the daemon counts, as Prometheus sees it. Plain typed handles; no label holds a pod, an address or an id.
//!
//! `awscni_*` gauges keep the name and meaning that dashboards for the AWS VPC CNI rely on; ours begin with `hawser_`.

use std::time::Duration;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ec2Labels {
    action: &'static str,
    /// `ok`, EC2's error code, or `no_answer`.
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
    /// `ok`, or the refusal's reason.
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// Every metric of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    ec2_calls: Family<Ec2Labels, Counter>,
    ec2_seconds: Histogram,
    verbs: Family<VerbLabels, Counter>,
    add_seconds: Histogram,
    wire_seconds: Histogram,
    del_seconds: Histogram,
    enis: Gauge,
    eni_max: Gauge,
    total: Gauge,
    assigned: Gauge,
    addresses: Family<StateLabels, Gauge>,
    waiting: Gauge,
    link_removal_failures: Counter,
}

/// The pool's figures at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolGauges {
    pub enis: usize,
    pub eni_max: u16,
    pub waiting: usize,
    /// Addresses by state.
    pub by_state: [(&'static str, usize); 6],
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("hawser_build", "Which build this is", build);
        let seconds = || Histogram::new([0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0]);
        Self {
            ec2_calls: registered(r, "hawser_ec2_calls", "EC2 calls by action and result", Family::default()),
            ec2_seconds: registered(r, "hawser_ec2_call_seconds", "How long EC2 calls took", seconds()),
            verbs: registered(r, "hawser_requests", "Requests by verb and result", Family::default()),
            add_seconds: registered(r, "hawser_add_seconds", "ADD, from request to answer", seconds()),
            wire_seconds: registered(r, "hawser_add_wire_seconds", "The datapath's share of an ADD", seconds()),
            del_seconds: registered(r, "hawser_del_seconds", "DEL, from request to answer", seconds()),
            enis: registered(r, "awscni_eni_allocated", "ENIs in the pool", Gauge::default()),
            eni_max: registered(r, "awscni_eni_max", "ENIs that the pool may hold", Gauge::default()),
            total: registered(r, "awscni_total_ip_addresses", "Pod addresses held", Gauge::default()),
            assigned: registered(r, "awscni_assigned_ip_addresses", "Pod addresses in use", Gauge::default()),
            addresses: registered(r, "hawser_addresses", "Pod addresses by state", Family::default()),
            waiting: registered(r, "hawser_waiting_adds", "ADDs that wait for an address", Gauge::default()),
            link_removal_failures: registered(r, "hawser_link_removal_failures", "Links not removed after DEL", Counter::default()),
            registry,
        }
    }

    pub fn ec2_call(&self, action: &'static str, failure: Option<&str>, took: Duration) {
        let result = failure.unwrap_or("ok").to_owned();
        self.ec2_calls.get_or_create(&Ec2Labels { action, result }).inc();
        self.ec2_seconds.observe(took.as_secs_f64());
    }

    pub fn add(&self, result: &'static str, took: Duration) {
        self.verbs.get_or_create(&VerbLabels { verb: "add", result }).inc();
        self.add_seconds.observe(took.as_secs_f64());
    }

    pub fn wired(&self, took: Duration) {
        self.wire_seconds.observe(took.as_secs_f64());
    }

    pub fn del(&self, result: &'static str, took: Duration) {
        self.verbs.get_or_create(&VerbLabels { verb: "del", result }).inc();
        self.del_seconds.observe(took.as_secs_f64());
    }

    pub fn verb(&self, verb: &'static str, result: &'static str) {
        self.verbs.get_or_create(&VerbLabels { verb, result }).inc();
    }

    pub fn link_removal_failed(&self) {
        self.link_removal_failures.inc();
    }

    pub fn pool(&self, pool: &PoolGauges) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.enis.set(count(pool.enis));
        self.eni_max.set(pool.eni_max.into());
        self.waiting.set(count(pool.waiting));
        self.total.set(count(pool.by_state.iter().map(|(_, n)| n).sum()));
        for &(state, n) in &pool.by_state {
            self.addresses.get_or_create(&StateLabels { state }).set(count(n));
            if state == "assigned" {
                self.assigned.set(count(n));
            }
        }
    }

    /// The OpenMetrics text of everything.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a string does not fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn registered<M: prometheus_client::registry::Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}
