//! `mode: uninstall`, then `helm uninstall`.

use cluster::cluster::Cluster;

use crate::{
    Outcome, hawser,
    setup::{NODES, PATIENCE},
};

/// A node with pods refuses and says which; a drained one is cleaned.
pub fn leaves_nothing(cluster: &mut Cluster) -> Outcome {
    cluster.kubectl(&["delete", "deployment", "--all", "--wait"])?;
    cluster.install(&["mode=uninstall"])?;
    let refused = "pods with Hawser's addresses run on this node (kube-system/coredns-";
    hawser::await_log(cluster, refused)?;
    cluster.kubectl(&[
        "scale",
        "deployment/coredns",
        "-n",
        "kube-system",
        "--replicas=0",
    ])?;
    hawser::rolled_out(cluster)?;
    for node in &cluster.nodes {
        // Each of these prints what is Hawser's. It has no routes in the table main, where the simulated instance's own have
        // the same protocol.
        let left = node.shell(
            "ls /etc/cni/net.d /run/hawser | grep -v ':$' | grep . || true
             ls /opt/cni/bin | grep -v loopback || true
             ip rule | grep -v -E 'lookup (local|main|default) *$' || true
             ip route show table all proto 107 | grep ' table ' || true
             nft list tables | grep hawser || true
             ip -o link | grep -o ' eni[0-9a-f]*@' || true",
        )?;
        assert_eq!(left, "", "{}", node.name);
    }
    cluster.helm(&[
        "uninstall",
        "hawser",
        "--namespace",
        "kube-system",
        "--wait",
    ])?;
    let not_ready = |text: &str| text.matches(" NotReady ").count() == NODES;
    cluster.await_kubectl(PATIENCE, &["get", "nodes"], not_ready)?;
    let left = cluster.kubectl(&[
        "get",
        "daemonsets,serviceaccounts,clusterroles,clusterrolebindings,validatingadmissionpolicies",
        "-A",
        "-l",
        "app.kubernetes.io/name=hawser",
        "-o",
        "name",
    ])?;
    assert_eq!(left, "");
    Ok(())
}
