//! Hawser's DaemonSet: whether it is rolled out, and what its daemons have in use.

use std::{cell::Cell, io};

use cluster::{cluster::Cluster, machine::Machine};
use lab::{http, wait::eventually};

use crate::{
    Outcome,
    setup::{PATIENCE, TIMEOUT},
};

pub const METRICS: u16 = 61678;
const PODS: [&str; 4] = ["-n", "kube-system", "-l", "app.kubernetes.io/name=hawser"];

/// Runs `kubectl get pods` for the DaemonSet's pods, with more arguments.
pub fn get_pods(cluster: &Cluster, more: &[&str]) -> io::Result<String> {
    cluster.kubectl(&[&["get", "pods"], &PODS[..], more].concat())
}

/// Waits until the log of one of the DaemonSet's pods has this text.
pub fn await_log(cluster: &Cluster, wanted: &str) -> io::Result<()> {
    let logs = [&["logs", "--prefix", "--tail=20"], &PODS[..]].concat();
    let said = cluster.await_kubectl(PATIENCE, &logs, |text| text.contains(wanted));
    said.map(drop)
}

/// Waits until every pod of the DaemonSet is of the newest form and ready.
pub fn rolled_out(cluster: &Cluster) -> Outcome {
    let arguments = [
        "rollout",
        "status",
        "daemonset/hawser",
        "-n",
        "kube-system",
        TIMEOUT,
    ];
    cluster.kubectl(&arguments)?;
    Ok(())
}

/// The daemons of these nodes have as many addresses in use as there are pods.
pub fn agrees(cluster: &Cluster, nodes: &[Machine]) -> Outcome {
    let seen = Cell::new((0, 0));
    let agree = eventually(PATIENCE, || {
        let counted = nodes.iter().map(|node| {
            let pods = with_address(cluster, &node.name)?;
            Ok((pods, assigned(node)?))
        });
        let counted: io::Result<Vec<_>> = counted.collect();
        let counted = counted.unwrap_or_default();
        seen.set(
            counted
                .iter()
                .fold((0, 0), |sum, both| (sum.0 + both.0, sum.1 + both.1)),
        );
        !counted.is_empty() && counted.iter().all(|(pods, assigned)| pods == assigned)
    });
    let seen = seen.get();
    assert!(
        agree,
        "pods with an address, and addresses in use: {seen:?}"
    );
    Ok(())
}

/// The number of a node's pods that have an address of their own.
fn with_address(cluster: &Cluster, node: &str) -> io::Result<usize> {
    let node = format!("spec.nodeName={node}");
    // kubectl's filters find no pod that lacks a field. These lines begin with a space.
    let form = r#"jsonpath={range .items[*]}{.spec.hostNetwork} {.status.podIP}{"\n"}{end}"#;
    let pods = ["get", "pods", "-A", "--field-selector", &node, "-o", form];
    let listed = cluster.kubectl(&pods)?;
    Ok(listed.lines().filter(|line| line.starts_with(' ')).count())
}

/// The number of addresses in use, by the daemon's metrics.
fn assigned(node: &Machine) -> io::Result<usize> {
    let answer = http::get(&node.instance.netns, METRICS, "/metrics", &[])?;
    let lines = answer.body.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix("awscni_assigned_ip_addresses "));
    let value = values.next().unwrap_or_default();
    value.parse().map_err(io::Error::other)
}
