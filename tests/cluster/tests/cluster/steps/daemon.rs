//! The DaemonSet's pods as the kernel and the API server see them.

use std::process::Command;

use cluster::{
    cluster::{CHART, Cluster},
    command::feed,
    images,
};

use crate::{Outcome, hawser, setup::PATIENCE};

/// CAP_NET_ADMIN is bit 12.
const NET_ADMIN_ONLY: &str = "0000000000001000";

pub fn has_one_capability(cluster: &mut Cluster) -> Outcome {
    hawser::rolled_out(cluster)?;
    for node in &cluster.nodes {
        // The machine's own processes and its containers', all of which are in its process namespace.
        let status = node.shell("cat /proc/$(pidof -s ipamd)/status")?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.map(str::trim).unwrap_or_default().to_owned()
        };
        for set in ["CapEff:", "CapPrm:", "CapBnd:"] {
            assert_eq!(field(set), NET_ADMIN_ONLY, "{set} in {status}");
        }
        assert_eq!(field("NoNewPrivs:"), "1");
        assert_eq!(field("Seccomp:"), "2", "a filter");
        let resident = field("VmRSS:");
        stdout::errln!(
            "          {}: CapEff {NET_ADMIN_ONLY}, resident {resident}",
            node.name
        );
    }
    Ok(())
}

pub fn passes_helm_test(cluster: &mut Cluster) -> Outcome {
    cluster.helm(&[
        "test",
        "hawser",
        "--namespace",
        "kube-system",
        "--timeout",
        "240s",
    ])?;
    Ok(())
}

/// The DaemonSet of the AWS VPC CNI has the same host port.
pub fn keeps_others_off(cluster: &mut Cluster) -> Outcome {
    const POD: &str = "other-network";
    let (node, image, port) = (&cluster.nodes[0].name, images::PAUSE, hawser::METRICS);
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {POD} }}
spec:
  hostNetwork: true
  nodeSelector: {{ kubernetes.io/hostname: {node} }}
  tolerations: [{{ operator: Exists }}]
  terminationGracePeriodSeconds: 1
  containers: [{{ name: other, image: \"{image}\", ports: [{{ containerPort: {port}, hostPort: {port} }}] }}]
"
    ))?;
    let form = "jsonpath={.status.phase} {.status.conditions[?(@.type==\"PodScheduled\")].message}";
    cluster.await_kubectl(PATIENCE, &["get", "pod", POD, "-o", form], |text| {
        text.starts_with("Pending ") && text.contains("free ports for the requested pod ports")
    })?;
    cluster.kubectl(&["delete", "pod", POD, "--wait"])?;
    Ok(())
}

/// GitOps tools compare all the time: neither two renderings nor the cluster's copy may differ.
pub fn is_as_rendered(cluster: &mut Cluster) -> Outcome {
    let manifest = ["get", "manifest", "hawser", "--namespace", "kube-system"];
    let installed = cluster.helm(&manifest)?;
    let values = cluster.helm(&[
        "get",
        "values",
        "hawser",
        "--namespace",
        "kube-system",
        "--output",
        "json",
    ])?;
    let file = cluster.lab.dir().join("values.json");
    std::fs::write(&file, values)?;
    let file = file.display().to_string();
    let again = cluster.helm(&[
        "template",
        "hawser",
        CHART,
        "--namespace",
        "kube-system",
        "--values",
        &file,
        "--no-hooks",
    ])?;
    assert_eq!(installed.trim(), again.trim());
    let mut diff: Command = cluster.kubectl_command()?;
    let difference = feed(
        diff.args(["diff", "--server-side", "--force-conflicts", "-f", "-"]),
        &installed,
    )?;
    assert_eq!(difference, "");
    Ok(())
}
