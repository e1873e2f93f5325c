//! The AWS VPC CNI's metrics, by name, type and meaning, so that dashboards and its metrics helper keep working.
//!
//! Left out: `awscni_pod_eni_error_count`, because security groups for pods are not supported. `awscni_force_removed_*`
//! always stay at zero: nothing in use is removed. Where the AWS VPC CNI's label has arbitrary text, ours has a
//! constant.

use std::{collections::BTreeMap, time::Duration};

use ipnet::IpNet;
use planner::{Snapshot, snapshot::AddressState};
use prometheus::{HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::{Book, Purpose, summary::Sums};

#[derive(Debug)]
pub(super) struct Upstream {
    errors: IntCounterVec,
    in_progress: IntGaugeVec,
    eni_max: IntGauge,
    ip_max: IntGauge,
    enis: IntGauge,
    total: IntGauge,
    assigned: IntGauge,
    prefixes: IntGauge,
    per_cidr: IntGaugeVec,
    per_eni: IntGaugeVec,
    reconciles: IntCounterVec,
    adds: IntCounter,
    dels: IntCounterVec,
    no_address: IntCounter,
    latency: Sums,
    api_errors: IntCounterVec,
    helper_errors: IntCounterVec,
    calls: IntCounterVec,
    call_errors: IntCounterVec,
    startup: HistogramVec,
    initialization: HistogramVec,
}

impl Upstream {
    #[rustfmt::skip] // one line per metric, as a table
    pub(super) fn new(book: &mut Book<'_>) -> Self {
        let build = book.gauges("awscni_build_info", "Version of this build", &["version", "goversion"]);
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), ""]).set(1);
        let backend = book.gauges("awscni_connmark_backend", "What marks connections", &["backend"]);
        backend.with_label_values(&["nftables"]).set(1);
        for name in ["awscni_force_removed_enis", "awscni_force_removed_ips"] {
            book.counter(name, "Removals while pods were assigned; always 0");
        }
        Self {
            errors: book.counters("awscni_ipamd_error_count", "Internal errors by site", &["fn"]),
            in_progress: book.gauges("awscni_ipamd_action_inprogress", "Actions in progress", &["fn"]),
            eni_max: book.gauge("awscni_eni_max", "Maximum number of ENIs in the pool"),
            ip_max: book.gauge("awscni_ip_max", "Maximum number of pod addresses in the pool"),
            enis: book.gauge("awscni_eni_allocated", "ENIs in the pool"),
            total: book.gauge("awscni_total_ip_addresses", "Pod addresses held"),
            assigned: book.gauge("awscni_assigned_ip_addresses", "Pod addresses in use"),
            prefixes: book.gauge("awscni_total_ipv4_prefixes", "Prefixes held"),
            per_cidr: book.gauges("awscni_assigned_ip_per_cidr", "Pod addresses in use by prefix, or by subnet for single addresses", &["cidr"]),
            per_eni: book.gauges("awscni_assigned_ip_per_eni", "Pod addresses in use by ENI", &["eni"]),
            reconciles: book.counters("awscni_reconcile_count", "Comparisons with EC2's list", &["fn"]),
            adds: book.counter("awscni_add_ip_req_count", "ADD requests"),
            dels: book.counters("awscni_del_ip_req_count", "DEL requests", &["reason"]),
            no_address: book.counter("awscni_no_available_ip_addresses", "ADDs refused because no address was free"),
            latency: book.enter(Sums::new("awscni_aws_api_latency_ms", "EC2 call latency", &["api", "error", "status"])),
            api_errors: book.counters("awscni_aws_api_error_count", "Errors of EC2 by code", &["api", "error"]),
            helper_errors: book.counters("awscni_aws_utils_error_count", "EC2 calls without an answer", &["fn", "error"]),
            calls: book.counters("awscni_ec2api_req_count", "EC2 calls", &["fn"]),
            call_errors: book.counters("awscni_ec2api_error_count", "EC2 calls that failed", &["fn"]),
            startup: book.many_seconds("awscni_ipamd_startup_duration_seconds", "Time from the start of the process until it serves", &["success", "with_api_server", "failure_reason"]),
            initialization: book.many_seconds("awscni_ipamd_node_initialization_duration_seconds", "Time from the start of the process until the node is prepared", &["success"]),
        }
    }

    pub(super) fn begun(&self, purpose: Purpose) {
        self.action(purpose).inc();
    }

    pub(super) fn ended(
        &self,
        action: &'static str,
        purpose: Purpose,
        failure: Option<&'static str>,
        took: Duration,
    ) {
        self.action(purpose).dec();
        self.calls.with_label_values(&[action]).inc();
        let error = if failure.is_some() { "true" } else { "false" };
        let labels = [action, error, failure.unwrap_or_default()];
        self.latency.observe(&labels, took.as_secs_f64() * 1e3);
        if purpose == Purpose::Observe {
            self.reconciles
                .with_label_values(&["eniReconcileAdd"])
                .inc();
        }
        let Some(code) = failure else { return };
        self.call_errors.with_label_values(&[action]).inc();
        self.errors.with_label_values(&[site(action)]).inc();
        if code == "no_answer" {
            self.helper_errors.with_label_values(&[action, code]).inc();
        } else {
            self.api_errors.with_label_values(&[action, code]).inc();
        }
    }

    fn action(&self, purpose: Purpose) -> IntGauge {
        self.in_progress.with_label_values(&[match purpose {
            Purpose::Grow => "increaseDatastorePool",
            Purpose::Shrink => "decreaseDatastorePool",
            Purpose::Observe => "nodeIPPoolReconcile",
        }])
    }

    pub(super) fn request(&self, verb: &str, result: &str) {
        match verb {
            "add" => self.adds.inc(),
            "del" => self.dels.with_label_values(&["PodDeleted"]).inc(),
            _ => {}
        }
        let wanting = [
            "POOL_EMPTY",
            "SUBNET_EXHAUSTED",
            "NO_SUBNET",
            "EC2_THROTTLED",
            "EC2_DENIED",
            "EC2_REFUSED",
            "EC2_UNREACHABLE",
            "ENI_LIMIT",
            "POD_LIMIT",
        ];
        if verb == "add" && wanting.contains(&result) {
            self.no_address.inc();
        }
    }

    pub(super) fn ready(&self, took: Duration) {
        let took = took.as_secs_f64();
        self.startup
            .with_label_values(&["true", "false", ""])
            .observe(took);
        self.initialization
            .with_label_values(&["true"])
            .observe(took);
    }

    pub(super) fn pool(&self, pool: &Snapshot) {
        let t = &pool.totals;
        self.eni_max.set(t.max_enis.into());
        self.ip_max.set(pool.limit.addresses.into());
        self.enis.set(t.enis.into());
        self.total.set(held(pool) + beyond(pool));
        self.assigned.set(t.assigned.into());
        self.prefixes.set(t.prefixes.into());
        self.assignments(pool);
    }

    /// Series of removed ENIs and prefixes are removed with them.
    fn assignments(&self, pool: &Snapshot) {
        self.per_eni.reset();
        self.per_cidr.reset();
        let mut by_cidr = BTreeMap::<_, i64>::new();
        for eni in &pool.enis {
            let mut used = 0;
            for address in &eni.addresses {
                let one = i64::from(address.state == AddressState::Assigned);
                used += one;
                let subnet = eni.subnet_cidr.map(IpNet::V4);
                if let Some(cidr) = address.prefix.or(subnet) {
                    *by_cidr.entry(cidr).or_default() += one;
                }
            }
            if let Some(id) = &eni.id {
                self.per_eni.with_label_values(&[id.0.as_str()]).set(used);
            }
        }
        for (cidr, used) in by_cidr {
            self.per_cidr
                .with_label_values(&[cidr.to_string().as_str()])
                .set(used);
        }
    }
}

/// What IPv6 prefixes have beyond the pool's count.
fn beyond(pool: &Snapshot) -> i64 {
    let all = pool.enis.iter().flat_map(|eni| &eni.prefixes);
    let uncounted = all.filter(|net| net.addr().is_ipv6()).map(|net| {
        let size = 1_i64 << (net.max_prefix_len() - net.prefix_len()).min(62);
        size - i64::from(planner::IPV6_PREFIX_SIZE)
    });
    uncounted.sum()
}

fn held(pool: &Snapshot) -> i64 {
    let t = &pool.totals;
    [
        t.free,
        t.reserved,
        t.assigned,
        t.cooling,
        t.quarantined,
        t.releasing,
    ]
    .into_iter()
    .map(i64::from)
    .sum()
}

/// Where the AWS VPC CNI would have counted the failure of this action.
fn site(action: &str) -> &'static str {
    match action {
        "CreateNetworkInterface" => "increaseIPPoolAllocENI",
        "AttachNetworkInterface" => "increaseIPPoolwaitENIAttachedFailed",
        "ModifyNetworkInterfaceAttribute" => "increaseIPPoolsetupENIFailed",
        "AssignPrivateIpAddresses" | "AssignIpv6Addresses" => {
            "increaseIPPoolAllocIPAddressesFailed"
        }
        "UnassignPrivateIpAddresses" | "UnassignIpv6Addresses" => "decreaseIPPool",
        "DetachNetworkInterface" | "DeleteNetworkInterface" => "decreaseIPPoolFreeENIFailed",
        _ => "reconcileFailedGetENIs",
    }
}
