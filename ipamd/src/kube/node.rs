//! What a Node object means for the pool. Pure.

use k8s_openapi::api::core::v1::NodeSpec;
use kube::core::{NotUsed, Object};

/// A Node without its status: the list of images there is most of the object, and changes with every heartbeat.
pub(super) type OwnNode = Object<NodeSpec, NotUsed>;

/// Taints by which a node is closed to new pods because it is cordoned or about to go. The first is what the AWS VPC CNI
/// looks at and the node lifecycle controller sets; the others are the cluster autoscaler's and Karpenter's, which take
/// theirs away again if they change their mind.
pub(super) const LEAVING: [&str; 3] = [
    "node.kubernetes.io/unschedulable",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
];

/// Whether addresses should be kept warm for pods to come.
pub(super) fn schedulable(node: &OwnNode) -> bool {
    let cordoned = node.spec.unschedulable.unwrap_or(false);
    let terminating = node.metadata.deletion_timestamp.is_some();
    let taints = node.spec.taints.iter().flatten();
    let leaving = taints
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .any(|taint| LEAVING.contains(&taint.key.as_str()));
    !(cordoned || terminating || leaving)
}
