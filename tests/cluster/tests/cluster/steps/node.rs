//! What a node says of itself.

use cluster::{cluster::Cluster, command::run};

use super::refusal::FULL;
use crate::{
    Outcome, hawser,
    setup::{NODES, PATIENCE, TAINT},
};

/// The node whose kube-proxy comes when the node is Ready.
pub const WITHOUT_PROXY: usize = 1;

/// From a cold start, with CoreDNS and on one node kube-proxy coming later than Hawser. The startup taint goes when pods can be
/// served.
pub fn becomes_ready(cluster: &mut Cluster) -> Outcome {
    let ready = |text: &str| text.matches(" Ready ").count() == NODES;
    cluster.await_kubectl(PATIENCE, &["get", "nodes"], ready)?;
    let taints = [
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[*].spec.taints[*].key}",
    ];
    cluster.await_kubectl(PATIENCE, &taints, |text| !text.contains(TAINT))?;
    let conditions = condition("NetworkUnavailable");
    let arguments = ["get", "nodes", "-o", conditions.as_str()];
    let up = |text: &str| text.matches("False HawserIsUp;").count() == NODES;
    cluster.await_kubectl(PATIENCE, &arguments, up)?;
    cluster.start_proxy(WITHOUT_PROXY)?;
    Ok(())
}

/// The node that the refused pod is on has a condition and an event, and they end with the pressure.
pub fn says_that_it_is_full(cluster: &mut Cluster) -> Outcome {
    let conditions = condition("PodAddressPressure");
    let name = cluster.nodes[0].name.clone();
    let arguments = ["get", "node", &name, "-o", conditions.as_str()];
    let full = |text: &str| text.starts_with("True PodLimitReached;");
    cluster.await_kubectl(PATIENCE, &arguments, full)?;
    let described = cluster.kubectl(&["describe", "node", &name])?;
    let limit =
        "every pod address is in use: m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses";
    assert!(described.contains(limit), "{described}");
    await_event(cluster, "PodLimitReached", &name)?;
    cluster.kubectl(&["delete", "deployment", FULL, "--wait"])?;
    let well = |text: &str| text.starts_with("False AddressesAvailable;");
    cluster.await_kubectl(PATIENCE, &arguments, well)?;
    await_event(cluster, "AddressesAvailable", &name)
}

/// Waits for an event of a node.
fn await_event(cluster: &Cluster, reason: &str, node: &str) -> Outcome {
    let selector = format!("reason={reason}");
    let events = ["get", "events", "--field-selector", &selector];
    cluster.await_kubectl(PATIENCE, &events, |text| text.contains(node))?;
    Ok(())
}

/// With the token of the daemon on the first node, as the API server gives it to the pod.
pub fn is_fenced(cluster: &mut Cluster) -> Outcome {
    let (own, other) = (&cluster.nodes[0].name, &cluster.nodes[1].name);
    let field = format!("spec.nodeName={own}");
    let name = "jsonpath={.items[0].metadata.name}";
    let pod = hawser::get_pods(cluster, &["--field-selector", &field, "-o", name])?;
    let token = cluster.kubectl(&[
        "create",
        "token",
        "hawser",
        "-n",
        "kube-system",
        "--bound-object-kind",
        "Pod",
        "--bound-object-name",
        &pod,
    ])?;
    // kubectl reads what it patches, which the daemon does not.
    let role = "--clusterrole=read-node-status";
    let account = "--serviceaccount=kube-system:hawser";
    let verb = ["--verb=get", "--resource=nodes/status"];
    cluster.kubectl(&[&["create", "clusterrole", "read-node-status"][..], &verb].concat())?;
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "read-node-status",
        role,
        account,
    ])?;
    let patch = |node: &str, subresource: &[&str], patch: &str| {
        let mut command = cluster.anonymous_kubectl()?;
        command
            .args(["--token", token.trim(), "patch", "node", node])
            .args(["--type", "merge", "--patch", patch])
            .args(subresource);
        run(&mut command)
    };
    let taint = format!(r#"{{"spec":{{"taints":[{{"key":"{TAINT}","effect":"NoSchedule"}}]}}}}"#);
    let status = ["--subresource", "status"];
    for (node, subresource, change, refusal) in [
        (other, &[][..], taint.as_str(), "may not change Node"),
        (
            own,
            &[],
            r#"{"spec":{"unschedulable":true}}"#,
            "no field of a Node's spec but",
        ),
        (
            own,
            &[],
            r#"{"metadata":{"labels":{"a":"b"}}}"#,
            "a Node's metadata",
        ),
        (
            own,
            &status,
            r#"{"status":{"capacity":{"pods":"9"}}}"#,
            "no field of a Node's status but",
        ),
        (
            other,
            &status,
            r#"{"status":{"conditions":[]}}"#,
            "may not change Node",
        ),
    ] {
        match patch(node, subresource, change) {
            Ok(done) => return Err(format!("{change} was admitted: {done}").into()),
            Err(error) => assert!(error.to_string().contains(refusal), "{change}: {error}"),
        }
    }
    patch(own, &[], &taint)?;
    patch(own, &[], r#"{"spec":{"taints":null}}"#)?;
    Ok(())
}

/// Output of kubectl: `STATUS REASON;` of one condition for each node.
fn condition(kind: &str) -> String {
    // One node is an object, several are a list.
    let one = format!(
        r#"{{range .status.conditions[?(@.type=="{kind}")]}}{{.status}} {{.reason}};{{end}}"#
    );
    format!("jsonpath={one}{{range .items[*]}}{one}{{end}}")
}
