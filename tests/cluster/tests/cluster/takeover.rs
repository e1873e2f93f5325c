//! A cluster of the real AWS VPC CNI: one of its nodes is taken over by Hawser's chart and given back, and every pod stays.
//!
//! The daemon of the AWS VPC CNI runs as a service of the machine and not as a DaemonSet, because its image has more than its
//! programs. What this leaves out is the scheduler's part: a label on the node decides which of both runs.

use std::{fs, io, os::unix::net::UnixStream, path::Path};

use cluster::{cluster::Cluster, images, machine::Machine, worker::Settings};
use lab::{aws_node::Kind, aws_vpc_cni, node::binaries, wait::eventually};

use crate::{
    Outcome, hawser, pods,
    setup::{KIND, NODES, PATIENCE, TIMEOUT},
    streams,
};

/// The daemon of the AWS VPC CNI, as a service.
const AWS_NODE: &str = "aws-node";
/// The plugin's log, on the machine.
const LOG: &str = "/var/log/aws-cni.log";
/// Hawser's pods run on nodes with this label.
const LABEL: &str = "hawser.dev/node=yes";
const SELECTOR: &str = r"nodeSelector.hawser\.dev/node=yes";
/// The node that changes hands. The other one stays with the AWS VPC CNI.
const NODE: usize = 0;
/// Replaced pods.
const REPLACED: usize = 3;

pub fn forth_and_back() -> Outcome {
    let mut cluster = start()?;
    pods::run_on_both_nodes(&mut cluster)?;
    pods::reach_services(&mut cluster)?;
    let streams = streams::start(&cluster)?;
    let handed = take_over(&mut cluster).and_then(|()| give_back(&mut cluster));
    // A packet to a pod may be lost when its link begins or ceases to use ARP.
    let delivered = streams.finish(&cluster, 2);
    handed?;
    delivered
}

/// A cluster whose nodes are ready with the AWS VPC CNI, and know Hawser's image.
fn start() -> io::Result<Cluster> {
    let mut cluster = Cluster::start()?;
    let directory = cluster.lab.dir().join("images");
    let archive = images::hawser(&directory, &binaries::ipamd(), &binaries::plugin())?;
    cluster.preload(archive);
    let ec2 = cluster.lab.sim.ec2_endpoint();
    for _ in 0..NODES {
        let number = cluster.add_node(KIND, &Settings::default())?;
        let node = &mut cluster.nodes[number];
        aws_vpc_cni::install_plugins(&node.path("opt/cni/bin"))?;
        start_aws_node(node, &ec2)?;
    }
    let ready = |text: &str| text.matches(" Ready ").count() == NODES;
    cluster.await_kubectl(PATIENCE, &["get", "nodes"], ready)?;
    Ok(cluster)
}

fn start_aws_node(node: &mut Machine, ec2: &str) -> io::Result<()> {
    node.shell(aws_vpc_cni::HOST)?;
    let kind = Kind::SecondaryIps;
    let variables = aws_vpc_cni::environment(kind, &node.name, ec2);
    let mut command: Vec<String> = variables
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    command.push(aws_vpc_cni::agent()?.display().to_string());
    node.start(AWS_NODE, "env", &command)?;
    let socket = node.path("run/aws-node/ipamd.sock");
    if !eventually(PATIENCE, || UnixStream::connect(&socket).is_ok()) {
        let text = format!("aws-node does not serve:\n{}", node.log(AWS_NODE));
        return Err(io::Error::other(text));
    }
    let text = aws_vpc_cni::network_configuration(kind, &node.instance, Path::new(LOG))?;
    let directory = node.path("etc/cni/net.d");
    fs::write(directory.join("10-aws.tmp"), text)?;
    fs::rename(
        directory.join("10-aws.tmp"),
        directory.join("10-aws.conflist"),
    )
}

/// Hawser refuses the node while `aws-node` runs, and takes it over afterwards.
fn take_over(cluster: &mut Cluster) -> Outcome {
    let before = seen(cluster)?;
    cluster.install(&["takeover.enabled=true", SELECTOR])?;
    let name = cluster.nodes[NODE].name.clone();
    cluster.kubectl(&["label", "node", &name, LABEL])?;
    hawser::await_log(cluster, "another network plugin is in charge of this node")?;
    assert_eq!(seen(cluster)?, before);
    cluster.nodes[NODE].stop(AWS_NODE, "KILL")?;
    hawser::rolled_out(cluster)?;
    assert_eq!(seen(cluster)?, before, "no pod was restarted");
    pods::reach_services(cluster)?;
    replace(cluster)?;
    run_another(cluster, "of-hawser")?;
    hawser::agrees(cluster, &cluster.nodes[NODE..=NODE])?;
    // Hawser's rules have the same priorities, and its protocol.
    let left = "ip rule | grep -E '^(512|1536):' | grep -v 'proto 107' || true";
    assert_eq!(cluster.nodes[NODE].shell(left)?, "");
    Ok(())
}

fn give_back(cluster: &mut Cluster) -> Outcome {
    let before = seen(cluster)?;
    cluster.install(&["mode=handback", "takeover.enabled=true", SELECTOR])?;
    let mark = cluster.nodes[NODE].path("etc/cni/net.d/10-aws.conflist");
    let theirs = || fs::read_to_string(&mark).is_ok_and(|text| !text.contains("hawser"));
    assert!(eventually(PATIENCE, theirs), "it does not begin");
    let ec2 = cluster.lab.sim.ec2_endpoint();
    start_aws_node(&mut cluster.nodes[NODE], &ec2)?;
    hawser::rolled_out(cluster)?;
    cluster.helm(&[
        "uninstall",
        "hawser",
        "--namespace",
        "kube-system",
        "--wait",
    ])?;
    assert_eq!(seen(cluster)?, before, "no pod was restarted");
    let left = cluster.nodes[NODE].shell(
        "ip rule | grep 'proto 107' || true
         nft list tables | grep hawser || true
         ip -d link | grep -e 'alias hawser' -e NOARP.*eni || true",
    )?;
    assert_eq!(left, "");
    pods::reach_services(cluster)?;
    replace(cluster)?;
    run_another(cluster, "of-aws-node")
}

/// Name, address and restarts of every pod that has an address of its own and is not a DaemonSet's.
fn seen(cluster: &Cluster) -> io::Result<String> {
    let form = r#"jsonpath={range .items[*]}{.metadata.name} {.status.podIP} {.status.containerStatuses[0].restartCount}{"\n"}{end}"#;
    cluster.kubectl(&[
        "get",
        "pods",
        "-A",
        "-l",
        "app.kubernetes.io/name!=hawser",
        "-o",
        form,
    ])
}

/// Deletes pods of the node, and waits for new ones.
fn replace(cluster: &mut Cluster) -> Outcome {
    let old = pods::on(cluster, &cluster.nodes[NODE].name)?;
    let mut delete = vec!["delete", "pods", "--wait"];
    delete.extend(old.iter().take(REPLACED).map(|(name, _)| name.as_str()));
    cluster.kubectl(&delete)?;
    cluster.kubectl(&["rollout", "status", "deployment/web", TIMEOUT])?;
    pods::reach_services(cluster)
}

/// Runs one more pod on the node. It is reached from a pod of the other node, and reaches the cluster's DNS.
fn run_another(cluster: &Cluster, name: &str) -> Outcome {
    let (node, image) = (&cluster.nodes[NODE].name, images::AGNHOST);
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: another }} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: web, image: \"{image}\", args: [netexec, --http-port=8080] }}]
"
    ))?;
    let pod = format!("pod/{name}");
    cluster.kubectl(&["wait", &pod, "--for=condition=Ready", TIMEOUT])?;
    let address = ["get", &pod, "-o", "jsonpath={.status.podIP}"];
    let address = cluster.kubectl(&address)?;
    let others = pods::on(cluster, &cluster.nodes[1 - NODE].name)?;
    pods::connect(cluster, &others[0].0, &format!("{address}:8080"))?;
    pods::connect(cluster, name, "web.default.svc.cluster.local:80")
}
