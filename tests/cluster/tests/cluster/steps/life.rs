//! Restarts of what a node consists of, and of the node itself.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use cluster::{cluster::Cluster, images, machine::Machine};
use lab::wait::eventually;

use crate::{
    Outcome, hawser, pods,
    setup::{NODES, PATIENCE},
    streams,
};

const OUTAGE: Duration = Duration::from_secs(120);
/// The pods whose node cannot start them before the API server is away.
const LATE: usize = 5;

/// kubelet, containerd and the API server are restarted, the last one after two minutes and with another certificate.
pub fn survives_restarts(cluster: &mut Cluster) -> Outcome {
    let streams = streams::start(cluster)?;
    let restarted = restart_kubelet(cluster).and_then(|()| outage(cluster));
    let delivered = streams.finish(cluster, 0);
    restarted?;
    delivered?;
    cluster.kubectl(&["delete", "pods", "-l", "app=late", "--wait=false"])?;
    Ok(())
}

/// A pod that is created afterwards runs.
fn restart_kubelet(cluster: &mut Cluster) -> Outcome {
    cluster.nodes[0].stop("kubelet", "KILL")?;
    cluster.start_kubelet(0)?;
    let node = cluster.nodes[0].name.clone();
    create_late(cluster, "after-kubelet", &node)?;
    running(cluster, 1)?;
    Ok(())
}

/// The pods are created before the outage, and the node starts them during it.
fn outage(cluster: &mut Cluster) -> Outcome {
    let restarts = daemon_restarts(cluster)?;
    cluster.nodes[1].stop("containerd", "KILL")?;
    let node = cluster.nodes[1].name.clone();
    for number in 0..LATE {
        create_late(cluster, &format!("late-{number}"), &node)?;
    }
    // kubelet sets it when it has seen the pod.
    let started = [
        "get",
        "pods",
        "-l",
        "app=late",
        "-o",
        r#"jsonpath={range .items[*]}{.status.startTime}{"\n"}{end}"#,
    ];
    let seen = |text: &str| text.lines().filter(|line| !line.is_empty()).count() == LATE + 1;
    cluster.await_kubectl(PATIENCE, &started, seen)?;
    #[expect(clippy::disallowed_methods, reason = "the outage is in real time")]
    let begun = Instant::now();
    cluster.control_plane.stop("kube-apiserver", "KILL")?;
    cluster.start_containerd(1)?;
    let node = &cluster.nodes[1];
    let run = eventually(PATIENCE, || late_containers(node).is_ok_and(|n| n == LATE));
    let took = begun.elapsed();
    if run {
        thread::sleep(OUTAGE.saturating_sub(took));
    }
    cluster.resume_api_server()?;
    assert!(
        run,
        "{} of {LATE} pods run after {took:?} without an API server:\n{}",
        late_containers(&cluster.nodes[1])?,
        cluster.nodes[1].log("kubelet")
    );
    stdout::errln!("          {LATE} pods started {took:.1?} after the API server's end");
    running(cluster, LATE + 1)?;
    assert_eq!(daemon_restarts(cluster)?, restarts, "no probe failed");
    Ok(())
}

/// Without a token, which only the API server can give.
fn create_late(cluster: &Cluster, name: &str, node: &str) -> io::Result<()> {
    let image = images::PAUSE;
    let spec = format!(
        "nodeName: {node}, automountServiceAccountToken: false, terminationGracePeriodSeconds: 1, \
         containers: [{{ name: late, image: \"{image}\" }}]"
    );
    cluster
        .apply(&format!(
            "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ app: late }} }}, spec: {{ {spec} }} }}"
        ))
        .map(drop)
}

/// How many of their containers run on the node, by its container runtime.
fn late_containers(node: &Machine) -> io::Result<usize> {
    let count = node.shell(
        "ctr='ctr --namespace k8s.io'
         $ctr tasks ls | grep RUNNING | cut -d ' ' -f 1 > /run/running
         $ctr containers ls -q 'labels.\"io.kubernetes.container.name\"==late' | grep -c -x -F -f /run/running || true",
    )?;
    count.trim().parse().map_err(io::Error::other)
}

fn running(cluster: &Cluster, count: usize) -> io::Result<String> {
    let late = ["get", "pods", "-l", "app=late"];
    cluster.await_kubectl(PATIENCE, &late, |text| {
        text.matches("1/1 ").count() == count
    })
}

fn daemon_restarts(cluster: &Cluster) -> io::Result<String> {
    let form = "jsonpath={.items[*].status.containerStatuses[*].restartCount}";
    hawser::get_pods(cluster, &["-o", form])
}

/// What the boot of the second node removes: libcni's cache of results and, as on Bottlerocket, all that was installed: the
/// network configuration and the plugins, except for the operating system's own.
const WIPE: &str = "rm -r /var/lib/cni/* /etc/cni/net.d/*
    find /opt/cni/bin -type f ! -name loopback -delete
    [ ! -e /opt/cni/bin/hawser ]";

/// Both nodes at once: with another boot id and an empty /run.
pub fn comes_back_from_a_reboot(cluster: &mut Cluster) -> Outcome {
    // After the outage, the nodes have taints until their kubelets are heard again.
    let form = "jsonpath={.items[*].spec.taints}";
    cluster.await_kubectl(PATIENCE, &["get", "nodes", "-o", form], |text| {
        text.is_empty()
    })?;
    pods::run_on_both_nodes(cluster)?;
    let boots = [
        "get",
        "nodes",
        "-o",
        "jsonpath={.items[*].status.nodeInfo.bootID}",
    ];
    let before = cluster.kubectl(&boots)?;
    for number in 0..NODES {
        cluster.reboot(number, if number == 1 { WIPE } else { "" })?;
    }
    let all_new = |text: &str| {
        let mut ids = text.split(' ');
        ids.clone().count() == NODES && ids.all(|id| !before.contains(id))
    };
    cluster.await_kubectl(PATIENCE, &boots, all_new)?;
    // Every pod keeps its name, and gets a new sandbox with a new address.
    let form = r#"jsonpath={range .items[*]}{.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].ready} {.status.podIP}{"\n"}{end}"#;
    let listed = ["get", "pods", "-l", "app=web", "-o", form];
    let back = |line: &&str| !line.starts_with('0') && line.contains(" true ");
    let listed = cluster.await_kubectl(PATIENCE, &listed, |text| {
        text.lines().filter(back).count() == pods::REPLICAS
    })?;
    let mut addresses: Vec<_> = listed
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), pods::REPLICAS, "{listed}");
    cluster.nodes[1].shell("ls /opt/cni/bin/hawser /etc/cni/net.d/10-aws.conflist")?;
    hawser::agrees(cluster, &cluster.nodes)?;
    pods::reach_services(cluster)
}
