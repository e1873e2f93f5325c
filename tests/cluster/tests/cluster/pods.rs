//! Pods and services, seen from pods, from nodes and from a machine that is no node.

use std::net::IpAddr;

use cluster::{cluster::Cluster, command::run, control_plane::API_PORT, images};

use crate::{Outcome, setup::TIMEOUT};

/// The deployment and its service.
pub const WEB: &str = "web";
pub const REPLICAS: usize = 40;
const NODE_PORT: u16 = 30080;

/// A Deployment of 40 pods, which fills two thirds of both nodes.
pub fn run_on_both_nodes(cluster: &mut Cluster) -> Outcome {
    let image = images::AGNHOST;
    cluster.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {WEB} }}
spec:
  replicas: {REPLICAS}
  selector: {{ matchLabels: {{ app: {WEB} }} }}
  template:
    metadata: {{ labels: {{ app: {WEB} }} }}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
        - name: web
          image: {image}
          args: [netexec, --http-port=8080]
          readinessProbe: {{ httpGet: {{ path: /hostname, port: 8080 }}, periodSeconds: 2 }}
---
apiVersion: v1
kind: Service
metadata: {{ name: {WEB} }}
spec:
  type: NodePort
  selector: {{ app: {WEB} }}
  ports: [{{ port: 80, targetPort: 8080, nodePort: {NODE_PORT} }}]
"
    ))?;
    cluster.kubectl(&["rollout", "status", "deployment/web", TIMEOUT])?;
    for node in &cluster.nodes {
        let pods = on(cluster, &node.name)?;
        assert!(pods.len() >= REPLICAS / 4, "{}: {pods:?}", node.name);
    }
    Ok(())
}

/// Each target from a pod of the first node: a pod of the other node, the ClusterIP, its name, both NodePorts; and the
/// NodePorts from outside the cluster.
pub fn reach_services(cluster: &mut Cluster) -> Outcome {
    let [here, there] = [0, 1].map(|number| on(cluster, &cluster.nodes[number].name));
    let (here, there) = (here?, there?);
    let (client, _) = &here[0];
    let service = ["get", "service", WEB, "-o", "jsonpath={.spec.clusterIP}"];
    let mut targets = vec![
        format!("{}:8080", here[1].1),
        format!("{}:8080", there[0].1),
        format!("{}:80", cluster.kubectl(&service)?),
        format!("{WEB}.default.svc.cluster.local:80"),
    ];
    let node_ports: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| format!("{}:{NODE_PORT}", node.instance.address))
        .collect();
    targets.extend(node_ports.iter().cloned());
    for target in &targets {
        connect(cluster, client, target)?;
    }
    for target in &node_ports {
        let mut outside = cluster.control_plane.command("agnhost")?;
        run(outside.args(["connect", "--timeout=20s", target]))?;
    }
    Ok(())
}

/// Through CoreDNS and the VPC's resolver: a name that the VPC has, and a node's.
pub fn resolve_names(cluster: &mut Cluster) -> Outcome {
    let address = IpAddr::from(cluster.api_server());
    let name = "api.corp.example".to_owned();
    cluster.lab.sim.names().insert(name.clone(), vec![address]);
    let (client, _) = &on(cluster, &cluster.nodes[0].name)?[0];
    for name in [&name, &cluster.control_plane.name] {
        connect(cluster, client, &format!("{name}:{API_PORT}"))?;
    }
    Ok(())
}

/// A pod connects to an address and a port.
pub fn connect(cluster: &Cluster, pod: &str, target: &str) -> Outcome {
    cluster.kubectl(&[
        "exec",
        pod,
        "--",
        "/agnhost",
        "connect",
        "--timeout=20s",
        target,
    ])?;
    Ok(())
}

/// Names and addresses of the deployment's pods on a node.
pub fn on(cluster: &Cluster, node: &str) -> std::io::Result<Vec<(String, String)>> {
    let field = format!("spec.nodeName={node}");
    let form = r#"jsonpath={range .items[*]}{.metadata.name} {.status.podIP}{"\n"}{end}"#;
    let listed = cluster.kubectl(&[
        "get",
        "pods",
        "-l",
        "app=web",
        "--field-selector",
        &field,
        "-o",
        form,
    ])?;
    let pods = listed.lines().filter_map(|line| line.split_once(' '));
    Ok(pods
        .map(|(name, address)| (name.to_owned(), address.to_owned()))
        .collect())
}
