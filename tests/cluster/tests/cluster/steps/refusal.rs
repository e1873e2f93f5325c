//! What says why something does not start: the 28th pod on an m5.large, which has addresses for 27, and an image for another
//! architecture.

use cluster::{cluster::Cluster, images, worker};
use lab::node::binaries;

use crate::{Outcome, setup::PATIENCE};

/// A deployment on one node. CoreDNS may have pods on it too, so not all of its pods get an address.
pub const FULL: &str = "full";
const ADDRESSES: usize = 27;
/// Comes when every address is in use.
const EXTRA: &str = "one-too-many";

/// The message of its event. `SANDBOX` stands for the id of the sandbox.
const REFUSAL: &str = "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to setup network for sandbox \
                       \"SANDBOX\": plugin type=\"hawser\" failed (add): all 27 pod addresses are in use: \
                       m5.large: 3 ENIs × (10 − 1) addresses = 27 pod addresses; the pod starts when another pod is \
                       deleted; lower the kubelet's max-pods to the value that `ipamd max-pods` prints, or use a larger \
                       instance type (POD_LIMIT)";

/// The message of the event in the output of `kubectl describe pod`.
fn refusal(described: &str) -> Option<String> {
    let mut lines = described.lines();
    let line = lines.find(|line| line.contains("FailedCreatePodSandBox"))?;
    let message = &line[line.find("Failed to create pod sandbox")?..];
    let mut parts: Vec<_> = message.split('"').collect();
    *parts.get_mut(1)? = "SANDBOX";
    Some(parts.join("\""))
}

/// `kubectl describe pod` says which limit is reached, and what helps.
pub fn says_why(cluster: &mut Cluster) -> Outcome {
    cluster.kubectl(&["delete", "deployment", "web", "--wait"])?;
    let (image, node) = (images::PAUSE, &cluster.nodes[0].name);
    let spec = format!(
        "nodeName: {node}, terminationGracePeriodSeconds: 1, containers: [{{ name: pause, image: \"{image}\" }}]"
    );
    cluster.apply(&format!(
        "apiVersion: apps/v1
kind: Deployment
metadata: {{ name: {FULL} }}
spec:
  replicas: {ADDRESSES}
  selector: {{ matchLabels: {{ app: {FULL} }} }}
  template: {{ metadata: {{ labels: {{ app: {FULL} }} }}, spec: {{ {spec} }} }}
"
    ))?;
    let field = format!("spec.nodeName={node},status.phase=Running");
    let running = [
        "get",
        "pods",
        "-A",
        "--field-selector",
        &field,
        "-o",
        "name",
    ];
    // Hawser's own pod has no address of the pool.
    let full = |text: &str| text.lines().count() == ADDRESSES + 1;
    cluster.await_kubectl(PATIENCE, &running, full)?;
    cluster.apply(&format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {EXTRA} }}, spec: {{ {spec} }} }}"
    ))?;
    let described = cluster.await_kubectl(PATIENCE, &["describe", "pod", EXTRA], |text| {
        text.contains("FailedCreatePodSandBox")
    })?;
    assert_eq!(refusal(&described).as_deref(), Some(REFUSAL), "{described}");
    cluster.kubectl(&["delete", "pod", EXTRA, "--wait"])?;
    Ok(())
}

/// The log of the first container, which installs the plugin, has the kernel's error and the path, as `deploy/README.md` says.
pub fn names_a_foreign_image(cluster: &mut Cluster) -> Outcome {
    const POD: &str = "foreign";
    let node = &cluster.nodes[0];
    let directory = cluster.lab.dir().join("images");
    let archive = images::foreign(&directory, &binaries::plugin())?;
    worker::import(node, &archive)?;
    let (image, name) = (images::FOREIGN, &node.name);
    cluster.apply(&format!(
        "apiVersion: v1
kind: Pod
metadata: {{ name: {POD} }}
spec:
  nodeName: {name}
  hostNetwork: true
  initContainers: [{{ name: install, image: \"{image}\" }}]
  containers: [{{ name: ipamd, image: \"{image}\" }}]
"
    ))?;
    cluster.await_kubectl(PATIENCE, &["logs", POD, "-c", "install"], |text| {
        text.contains("exec /usr/bin/ipamd: exec format error")
    })?;
    cluster.kubectl(&["delete", "pod", POD, "--wait", "--grace-period=1"])?;
    Ok(())
}
