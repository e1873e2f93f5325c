//! The admission policy of the chart, with a real API server and without nodes: what the token of a daemon may write.

use cluster::cluster::CHART;
use lab::wait::eventually;

use super::api_server::Server;
use crate::{
    Outcome,
    setup::{PATIENCE, TAINT},
};

const NODES: [&str; 2] = ["own", "other"];
/// The daemon's pod.
const POD: &str = "daemon";

/// What kubectl does besides, and a daemon does not: it reads what it patches. The right to create Nodes shows that the policy
/// refuses it.
const MORE_RIGHTS: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: { name: more }
rules: [{ apiGroups: [""], resources: [nodes, nodes/status], verbs: [get, create] }]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: { name: more }
roleRef: { apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: more }
subjects: [{ kind: ServiceAccount, name: hawser, namespace: kube-system }]
"#;

/// Refused changes of the own Node: subresource, patch and a part of the message.
const REFUSED: [(&str, &str, &str); 14] = [
    ("", r#"{"spec":{"unschedulable":true}}"#, SPEC),
    ("", r#"{"spec":{"providerID":"aws:///a/i-1"}}"#, SPEC),
    (
        "",
        r#"{"spec":{"podCIDR":"10.9.0.0/24","podCIDRs":["10.9.0.0/24"]}}"#,
        SPEC,
    ),
    (
        "",
        r#"{"spec":{"taints":[{"key":"foreign","effect":"NoSchedule"}]}}"#,
        SPEC,
    ),
    ("", r#"{"spec":{"taints":null}}"#, SPEC),
    ("", r#"{"metadata":{"labels":{"a":"b"}}}"#, METADATA),
    ("", r#"{"metadata":{"annotations":{"a":"b"}}}"#, METADATA),
    ("status", r#"{"status":{"capacity":{"pods":"9"}}}"#, STATUS),
    (
        "status",
        r#"{"status":{"conditions":[{"type":"Ready","status":"False"}]}}"#,
        STATUS,
    ),
    (
        "status",
        r#"{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.9"}]}}"#,
        STATUS,
    ),
    (
        "status",
        r#"{"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":9}}}}"#,
        STATUS,
    ),
    (
        "status",
        r#"{"status":{"nodeInfo":{"kubeletVersion":"v9"}}}"#,
        STATUS,
    ),
    ("status", r#"{"status":{"volumesInUse":["v"]}}"#, STATUS),
    (
        "status",
        r#"{"status":{"volumesAttached":[{"name":"v","devicePath":"d"}]}}"#,
        STATUS,
    ),
];
/// The taint with which the API server creates Nodes. A patch replaces the whole list.
const NOT_READY: &str = r#"{"key":"node.kubernetes.io/not-ready","effect":"NoSchedule"}"#;
const SPEC: &str = "no field of a Node's spec but the taint";
const METADATA: &str = "a Node's metadata";
const STATUS: &str = "no field of a Node's status but";

/// A server with the chart, two Nodes, and a token as the daemon on the first one has it.
struct Fence {
    server: Server,
    token: String,
}

impl Fence {
    fn new() -> Result<Self, libtest_mimic::Failed> {
        let server = Server::start()?;
        server.helm("install", &[CHART])?;
        server.apply(MORE_RIGHTS)?;
        for node in NODES {
            server.apply(&format!(
                "{{ apiVersion: v1, kind: Node, metadata: {{ name: {node} }} }}"
            ))?;
        }
        server.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {POD}, namespace: kube-system }}
spec:
  serviceAccountName: hawser
  nodeName: {}
  containers: [{{ name: ipamd, image: hawser }}]
",
            NODES[0]
        ))?;
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", POD];
        let token = token(&server, &bound)?;
        Ok(Self { server, token })
    }

    fn patch(&self, node: &str, subresource: &str, patch: &str) -> std::io::Result<String> {
        self.patch_as(&self.token, node, subresource, patch)
    }

    fn patch_as(
        &self,
        token: &str,
        node: &str,
        subresource: &str,
        patch: &str,
    ) -> std::io::Result<String> {
        let mut arguments = vec![
            "patch",
            "node",
            node,
            "--type",
            "strategic",
            "--patch",
            patch,
        ];
        if !subresource.is_empty() {
            arguments.extend(["--subresource", subresource]);
        }
        self.server.kubectl_as(token, &arguments)
    }
}

fn token(server: &Server, more: &[&str]) -> std::io::Result<String> {
    let create = ["create", "token", "hawser", "-n", "kube-system"];
    let token = server.kubectl(&[&create[..], more].concat())?;
    Ok(token.trim().to_owned())
}

fn expect_refused(answer: std::io::Result<String>, wanted: &str, what: &str) {
    match answer {
        Ok(done) => panic!("{what} was admitted: {done}"),
        Err(error) => assert!(error.to_string().contains(wanted), "{what}: {error}"),
    }
}

pub(super) fn a_daemon_writes_a_few_fields_of_its_own_node_only() -> Outcome {
    let fence = Fence::new()?;
    let [own, other] = NODES;
    // The API server reads new policies in the background. Meanwhile nothing may be changed.
    let try_out = [
        "patch",
        "node",
        own,
        "--dry-run=server",
        "--patch",
        REFUSED[0].1,
    ];
    let closed = || fence.server.kubectl_as(&fence.token, &try_out).is_err();
    assert!(eventually(PATIENCE, closed), "the policy is not in force");
    for (subresource, patch, wanted) in REFUSED {
        expect_refused(fence.patch(own, subresource, patch), wanted, patch);
    }
    let up = r#"{"status":{"conditions":[{"type":"NetworkUnavailable","status":"False","reason":"HawserIsUp"}]}}"#;
    let without = format!(r#"{{"spec":{{"taints":[{NOT_READY}]}}}}"#);
    let taint = format!(
        r#"{{"spec":{{"taints":[{NOT_READY},{{"key":"{TAINT}","effect":"NoSchedule"}}]}}}}"#
    );
    for (subresource, patch) in [("status", up), ("", taint.as_str())] {
        let of_other = fence.patch(other, subresource, patch);
        expect_refused(of_other, "may not change Node other", patch);
        let unbound = token(&fence.server, &[])?;
        let anywhere = fence.patch_as(&unbound, own, subresource, patch);
        expect_refused(anywhere, "bound to a pod on a node", patch);
        fence.patch(own, subresource, patch)?;
    }
    fence.patch(own, "", &without)?;
    let create = ["create", "--raw", "/api/v1/nodes", "-f"];
    let file = std::env::temp_dir().join(format!("hawser-node-{}.json", std::process::id()));
    let node = r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"new"}}"#;
    std::fs::write(&file, node)?;
    let path = file.display().to_string();
    let created = fence
        .server
        .kubectl_as(&fence.token, &[&create[..], &[&path]].concat());
    std::fs::remove_file(&file)?;
    expect_refused(created, "may not create Nodes", node);
    expect_no_warnings(&fence.server)
}

/// The API server checks the types of a policy's expressions.
fn expect_no_warnings(server: &Server) -> Outcome {
    let form = "jsonpath={.status.typeChecking.expressionWarnings}";
    let policy = [
        "get",
        "validatingadmissionpolicy",
        "hawser-own-node",
        "-o",
        form,
    ];
    assert_eq!(server.kubectl(&policy)?, "");
    Ok(())
}
