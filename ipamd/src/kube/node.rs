//! What a Node object means for the pool. Pure.

use k8s_openapi::api::core::v1::NodeSpec;
use kube::core::{NotUsed, Object};

use super::eni_config;
use crate::config::EniConfigKeys;

/// A Node without its status: most of the object is its list of images, which changes with every heartbeat.
pub(super) type OwnNode = Object<NodeSpec, NotUsed>;

/// Taints that exclude new pods because the node is cordoned or about to be removed. The first is the one that the AWS
/// VPC CNI checks and the node lifecycle controller sets; the others are from the cluster autoscaler and Karpenter,
/// which remove them if the node stays.
pub(super) const LEAVING: [&str; 3] = [
    "node.kubernetes.io/unschedulable",
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
];

/// Whether addresses should be kept warm for new pods.
pub(super) fn schedulable(node: &OwnNode) -> bool {
    let cordoned = node.spec.unschedulable.unwrap_or(false);
    let terminating = node.metadata.deletion_timestamp.is_some();
    let taints = node.spec.taints.iter().flatten();
    let leaving = taints
        .filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"))
        .any(|taint| LEAVING.contains(&taint.key.as_str()));
    !(cordoned || terminating || leaving)
}

/// The uid of a Node object, once it was read. A Node that is registered anew has another one.
pub type Uid = Option<String>;

/// What matters of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeState {
    /// It accepts pods.
    pub schedulable: bool,
    /// The name of its ENIConfig, once it was read and if it matters.
    pub eni_config: Option<String>,
    pub uid: Uid,
}

impl NodeState {
    pub(super) fn of(node: &OwnNode, keys: Option<&EniConfigKeys>) -> Self {
        Self {
            schedulable: schedulable(node),
            eni_config: keys.map(|keys| eni_config::name_of(&node.metadata, keys)),
            uid: node.metadata.uid.clone(),
        }
    }
}
