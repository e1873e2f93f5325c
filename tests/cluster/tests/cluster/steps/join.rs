//! A third node: it joins, takes a burst of pods, is drained and leaves.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader},
    process::Stdio,
    time::{Duration, Instant},
};

use cluster::{cluster::Cluster, images, machine::Machine, worker::Settings};
use lab::http;
use vpc_sim::world::model::NetworkInterface;

use crate::{
    Outcome, hawser,
    setup::{NODES, PATIENCE, TAINT, TIMEOUT},
};

/// 8 ENIs with 29 pod addresses each.
const KIND: &str = "m5.4xlarge";
const BURST: usize = 100;
/// The primary one, and the one that WARM_ENI_TARGET=1 keeps.
const ENIS_AT_REST: usize = 2;

/// Prints how long the node takes until it is Ready, and the pods from scheduled to Running.
#[expect(clippy::disallowed_methods, reason = "the test tells real times")]
pub fn takes_a_burst(cluster: &mut Cluster) -> Outcome {
    let begun = Instant::now();
    let settings = Settings {
        max_pods: 250,
        taints: vec![format!("{TAINT}=:NoSchedule")],
        ..Settings::default()
    };
    let number = cluster.add_node(KIND, &settings)?;
    let started = begun.elapsed();
    let ready = |text: &str| text.matches(" Ready ").count() == NODES + 1;
    cluster.await_kubectl(PATIENCE, &["get", "nodes"], ready)?;
    stdout::errln!(
        "          {KIND}: kubelet started {:.1} s after the launch, Ready {:.1} s later",
        started.as_secs_f64(),
        (begun.elapsed() - started).as_secs_f64()
    );
    let name = cluster.nodes[number].name.clone();
    let taints = ["get", "node", &name, "-o", "jsonpath={.spec.taints[*].key}"];
    cluster.await_kubectl(PATIENCE, &taints, |text| !text.contains(TAINT))?;
    burst(cluster, &name)?;
    told_by_the_daemon(&cluster.nodes[number])?;
    assert!(
        attached(cluster, number) > ENIS_AT_REST,
        "the pods need more ENIs than an empty node"
    );
    cluster.kubectl(&["drain", &name, "--ignore-daemonsets", "--force", TIMEOUT])?;
    cluster.kubectl(&["delete", "deployment", "burst", "--wait"])?;
    Ok(())
}

/// A drained node gives its ENIs back, and a deleted one leaves nothing in EC2.
pub fn leaves(cluster: &mut Cluster) -> Outcome {
    let number = NODES;
    let (name, id) = (
        cluster.nodes[number].name.clone(),
        cluster.nodes[number].instance.id.clone(),
    );
    let returned = lab::wait::eventually(PATIENCE, || attached(cluster, number) <= ENIS_AT_REST);
    assert!(returned, "{} ENIs", attached(cluster, number));
    cluster.kubectl(&["delete", "node", &name, "--wait"])?;
    cluster.terminate(number)?;
    let world = cluster.lab.sim.world();
    let tag = |eni: &&NetworkInterface| {
        eni.tags.values().any(|value| **value == *id.to_string())
            || eni.attachment.as_ref().is_some_and(|at| at.instance == id)
    };
    assert_eq!(world.interfaces().filter(tag).count(), 0);
    Ok(())
}

fn attached(cluster: &Cluster, number: usize) -> usize {
    let id = &cluster.nodes[number].instance.id;
    let world = cluster.lab.sim.world();
    let ours = world.interfaces().filter(|eni| {
        let at = eni.attachment.as_ref();
        at.is_some_and(|at| at.instance == *id)
    });
    ours.count()
}

#[expect(clippy::disallowed_methods, reason = "the test tells real times")]
fn burst(cluster: &Cluster, node: &str) -> Outcome {
    let mut watch = cluster.kubectl_command()?;
    let form = r#"jsonpath={.metadata.name} {.status.phase} {.spec.nodeName}{"\n"}"#;
    watch
        .args(["get", "pods", "-l", "app=burst", "--watch", "-o", form])
        .stdout(Stdio::piped());
    let mut watch = watch.spawn()?;
    let output = watch.stdout.take().ok_or("kubectl has no output")?;
    let image = images::PAUSE;
    let begun = Instant::now();
    cluster.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: burst }}
spec:
  replicas: {BURST}
  selector: {{ matchLabels: {{ app: burst }} }}
  template:
    metadata: {{ labels: {{ app: burst }} }}
    spec:
      nodeSelector: {{ kubernetes.io/hostname: {node} }}
      terminationGracePeriodSeconds: 1
      containers: [{{ name: pause, image: \"{image}\" }}]
"
    ))?;
    let mut scheduled = BTreeMap::new();
    let mut took = BTreeMap::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        let [pod, phase, node] = line.split(' ').collect::<Vec<_>>()[..] else {
            continue;
        };
        if !node.is_empty() {
            let at = *scheduled.entry(pod.to_owned()).or_insert_with(Instant::now);
            if phase == "Running" {
                took.entry(pod.to_owned()).or_insert_with(|| at.elapsed());
            }
        }
        if took.len() == BURST || begun.elapsed() > PATIENCE {
            break;
        }
    }
    watch.kill()?;
    watch.wait()?;
    assert_eq!(took.len(), BURST, "pods that run");
    let mut took: Vec<Duration> = took.into_values().collect();
    took.sort_unstable();
    stdout::errln!(
        "          {BURST} pods at once: all Running after {:.1} s; from scheduled to Running p50 {:.1} s, p99 {:.1} s",
        begun.elapsed().as_secs_f64(),
        took[BURST / 2].as_secs_f64(),
        took[BURST * 99 / 100].as_secs_f64()
    );
    Ok(())
}

/// The CNI's share of these times: the ADDs on a node that served no others.
fn told_by_the_daemon(node: &Machine) -> io::Result<()> {
    let answer = http::get(&node.instance.netns, hawser::METRICS, "/metrics", &[])?;
    let mut buckets = Vec::new();
    for line in answer.body.lines() {
        let Some(rest) = line.strip_prefix("hawser_request_seconds_bucket{") else {
            continue;
        };
        let bound = rest
            .split("le=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let count = line
            .rsplit(' ')
            .next()
            .and_then(|count| count.parse::<u64>().ok());
        if let (true, Some(bound), Some(count)) = (rest.contains("verb=\"add\""), bound, count) {
            buckets.push((bound, count));
        }
    }
    let total = buckets.last().map_or(0, |(_, count)| *count);
    let at = |percent: u64| {
        let mut over = buckets.iter();
        let found = over.find(|(_, count)| *count * 100 >= total * percent);
        found.map_or("?", |(bound, _)| *bound)
    };
    stdout::errln!(
        "          of it in the daemon, {total} ADDs: p50 at most {} s, p99 at most {} s",
        at(50),
        at(99)
    );
    Ok(())
}
