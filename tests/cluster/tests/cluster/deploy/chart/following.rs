//! A daemon and the ENIConfigs of a real API server. It reads them with the rights that the chart gives it, before any
//! kube-proxy has made the address of the API server's Service lead anywhere.

use std::{fs, io, path::Path, time::Duration};

use cluster::cluster::CHART;
use lab::{Lab, node::Node, subnets::with_pod_subnets, wait::eventually};

use super::api_server::{Server, URL};
use crate::Outcome;

const PATIENCE: Duration = Duration::from_secs(60);
const SUBNETS: [&str; 2] = ["100.64.1.0/24", "100.64.2.0/24"];

const NODE: &str = "apiVersion: v1
kind: Node
metadata: { name: lab-node, labels: { topology.kubernetes.io/zone: us-west-2a } }
";

/// The configuration of a client with the token of the chart's service account.
fn write_kubeconfig(server: &Server, path: &Path) -> io::Result<()> {
    let token = server.kubectl(&["create", "token", "hawser", "--namespace", "kube-system"])?;
    let text = format!(
        "apiVersion: v1
kind: Config
current-context: c
contexts: [{{ name: c, context: {{ cluster: c, user: u }} }}]
clusters: [{{ name: c, cluster: {{ server: 'https://10.96.0.1', certificate-authority: {ca} }} }}]
users: [{{ name: u, user: {{ token: {token} }} }}]
",
        ca = server.authority().display(),
        token = token.trim(),
    );
    fs::write(path, text)
}

/// Installs the chart or changes it so that the ENIConfig of the zone has this subnet.
fn configure(server: &Server, verb: &str, subnet: &str) -> io::Result<String> {
    let subnet = format!("eniConfig.subnets.us-west-2a.id={subnet}");
    let custom = "env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true";
    let values = [custom, "eniConfig.create=true", subnet.as_str()];
    let values: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
    server.helm(verb, &[&[CHART], &values[..]].concat())
}

pub(super) fn the_daemon_follows_the_eni_config() -> Outcome {
    let lab = Lab::start(with_pod_subnets(&SUBNETS)?)?;
    let [first, second] = SUBNETS.map(|cidr| lab.subnet(cidr).map(|id| id.to_string()));
    let path = lab.dir().join("kubeconfig");
    let kubeconfig = path.display().to_string();
    let settings = [
        ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true"),
        ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone"),
        ("MY_NODE_NAME", "lab-node"),
        ("KUBECONFIG", kubeconfig.as_str()),
        ("CLUSTER_ENDPOINT", URL),
        ("WARM_IP_TARGET", "1"),
    ];
    let mut node = lab.bare_node("t3.small", &settings)?;
    // The same namespace without the daemon, for the API server and its clients.
    let host = node.host()?;
    let server = host.run(|| -> io::Result<Server> {
        let server = Server::start()?;
        configure(&server, "install", &first?)?;
        server.apply(NODE)?;
        write_kubeconfig(&server, &path)?;
        Ok(server)
    })??;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let in_subnet = |node: &Node, name: &str, cidr: &str| -> Outcome {
        let pod = node.add_pod(name)?;
        let subnet = lab.subnet_of(pod.address()).map(|net| net.to_string());
        assert_eq!(subnet.as_deref(), Some(cidr), "{}", node.log());
        Ok(())
    };
    in_subnet(&node, "old", SUBNETS[0])?;
    host.run(|| configure(&server, "upgrade", &second?))??;
    let leaves = || {
        let shown = node.ask(&lab.sim.ec2_endpoint(), &["inspect"]);
        shown.is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains("leaves with its pods"))
    };
    assert!(eventually(PATIENCE, leaves), "{}", node.log());
    in_subnet(&node, "new", SUBNETS[1])?;
    host.run(|| server.kubectl(&["delete", "eniconfig", "us-west-2a"]))??;
    let told = || {
        node.log()
            .contains("the ENIConfig \\\"us-west-2a\\\" of this node does not exist")
    };
    assert!(eventually(PATIENCE, told), "{}", node.log());
    Ok(())
}
