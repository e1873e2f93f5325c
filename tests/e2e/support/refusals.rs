//! Nodes without a free address, and the four places where a refusal must have the same reason: the plugin's answer,
//! its code, the counter and the log.

use lab::{
    Lab,
    node::{Node, plugin},
};
use libtest_mimic::Failed;
use proto::refusal::{Reason, cni_code};
use serde_json::{Value, json};

use crate::suite::Outcome;

/// An ADD that gives up after this many seconds.
pub fn add_within(node: &Node, seconds: u32) -> std::io::Result<plugin::Outcome> {
    add_one_within(node, "waits", seconds)
}

/// The same for the sandbox of this id.
pub fn add_one_within(node: &Node, id: &str, seconds: u32) -> std::io::Result<plugin::Outcome> {
    let (_netns, path) = node.sandbox(id)?;
    node.invocation("ADD", id, Some(&path))
        .conf("deadlineSeconds", json!(seconds))
        .run(node.netns())
}

/// A pool that never holds more than its pods need, once they have three addresses. With `WARM_ENI_TARGET=0` it would:
/// that setting adds an ENI as soon as the last address is used, and an ADD that should wait would be served.
pub const WANTS_NO_MORE: (&str, &str) = ("MINIMUM_IP_TARGET", "3");

/// A node whose addresses are all in use, so the next ADD needs EC2.
pub fn full_node(lab: &Lab) -> std::io::Result<Node> {
    let node = lab.node("t3.small", &[WANTS_NO_MORE])?;
    fill(&node, 3)?;
    Ok(node)
}

pub fn fill(node: &Node, pods: u32) -> std::io::Result<()> {
    (0..pods).try_for_each(|n| node.add_pod(&format!("pod{n}")).map(drop))
}

/// Whether an ADD was refused for `reason` with this text, and was counted and logged under the same name.
pub fn expect_refusal(
    node: &Node,
    refused: &plugin::Outcome,
    reason: Reason,
    words: &[&str],
) -> Outcome {
    expect_refusal_of("add", node, refused, reason, words)
}

/// The same for any verb.
pub fn expect_refusal_of(
    verb: &str,
    node: &Node,
    refused: &plugin::Outcome,
    reason: Reason,
    words: &[&str],
) -> Outcome {
    let (name, text) = (reason.as_str_name(), refused.error_text());
    let code = Some(cni_code(reason).into());
    assert_eq!(refused.error_code(), code, "{refused:?}");
    for word in words.iter().copied().chain([&*format!("({name}")]) {
        assert!(text.contains(word), "\"{word}\" is not in: {text}");
    }
    let line = expect_counted(verb, node, reason)?;
    assert_eq!(line["cause"], refused.json["msg"]);
    Ok(())
}

/// The last log line about a refusal for `reason`, which must also have been counted.
pub fn expect_counted(verb: &str, node: &Node, reason: Reason) -> Result<Value, Failed> {
    let name = reason.as_str_name();
    let counter = format!("hawser_requests_total{{result=\"{name}\",verb=\"{verb}\"}}");
    assert!(node.metric(&counter)? > 0, "{counter} did not count");
    logged(verb, node, reason).ok_or_else(|| node.log().into())
}

pub fn logged(verb: &str, node: &Node, reason: Reason) -> Option<Value> {
    let log = node.log();
    let mut lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let refused = |line: &Value| {
        line["message"] == "refused"
            && line["verb"] == verb
            && line["reason"] == reason.as_str_name()
    };
    lines.rfind(refused)
}
