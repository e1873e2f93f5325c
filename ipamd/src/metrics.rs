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
struct RequestLabels {
    verb: &'static str,
    /// `ok`, or the refusal's reason.
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VerbLabels {
    verb: &'static str,
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
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<VerbLabels, Histogram, fn() -> Histogram>,
    wire_seconds: Histogram,
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
    pub enis: u32,
    pub eni_max: u32,
    pub waiting: u32,
    /// Addresses by state.
    pub by_state: [(&'static str, u32); 6],
}

impl Metrics {
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let r = &mut registry;
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        r.register("hawser_build", "Which build this is", build);
        Self {
            ec2_calls: registered(
                r,
                "hawser_ec2_calls",
                "EC2 calls by action and result",
                Family::default(),
            ),
            ec2_seconds: registered(
                r,
                "hawser_ec2_call_seconds",
                "How long EC2 calls took",
                seconds(),
            ),
            requests: registered(
                r,
                "hawser_requests",
                "Requests by verb and result",
                Family::default(),
            ),
            request_seconds: registered(
                r,
                "hawser_request_seconds",
                "From request to answer, by verb",
                Family::new_with_constructor(seconds as fn() -> Histogram),
            ),
            wire_seconds: registered(
                r,
                "hawser_add_wire_seconds",
                "The datapath's share of an ADD",
                seconds(),
            ),
            enis: registered(
                r,
                "awscni_eni_allocated",
                "ENIs in the pool",
                Gauge::default(),
            ),
            eni_max: registered(
                r,
                "awscni_eni_max",
                "ENIs that the pool may hold",
                Gauge::default(),
            ),
            total: registered(
                r,
                "awscni_total_ip_addresses",
                "Pod addresses held",
                Gauge::default(),
            ),
            assigned: registered(
                r,
                "awscni_assigned_ip_addresses",
                "Pod addresses in use",
                Gauge::default(),
            ),
            addresses: registered(
                r,
                "hawser_addresses",
                "Pod addresses by state",
                Family::default(),
            ),
            waiting: registered(
                r,
                "hawser_waiting_adds",
                "ADDs that wait for an address",
                Gauge::default(),
            ),
            link_removal_failures: registered(
                r,
                "hawser_link_removal_failures",
                "Links not removed after DEL",
                Counter::default(),
            ),
            registry,
        }
    }

    pub fn ec2_call(&self, action: &'static str, failure: Option<&str>, took: Duration) {
        let result = failure.unwrap_or("ok").to_owned();
        self.ec2_calls
            .get_or_create(&Ec2Labels { action, result })
            .inc();
        self.ec2_seconds.observe(took.as_secs_f64());
    }

    pub fn request(&self, verb: &'static str, result: &'static str, took: Duration) {
        self.requests
            .get_or_create(&RequestLabels { verb, result })
            .inc();
        self.request_seconds
            .get_or_create(&VerbLabels { verb })
            .observe(took.as_secs_f64());
    }

    pub fn wired(&self, took: Duration) {
        self.wire_seconds.observe(took.as_secs_f64());
    }

    pub fn link_removal_failed(&self) {
        self.link_removal_failures.inc();
    }

    pub fn pool(&self, pool: &PoolGauges) {
        self.enis.set(pool.enis.into());
        self.eni_max.set(pool.eni_max.into());
        self.waiting.set(pool.waiting.into());
        self.total
            .set(pool.by_state.iter().map(|&(_, n)| i64::from(n)).sum());
        for &(state, n) in &pool.by_state {
            self.addresses
                .get_or_create(&StateLabels { state })
                .set(n.into());
            if state == "assigned" {
                self.assigned.set(n.into());
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

/// From half a millisecond, the kernel's floor for one pod, to the longest wait for an address.
fn seconds() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 20.0, 60.0,
    ])
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
