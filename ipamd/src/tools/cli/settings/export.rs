//! From a DaemonSet to a values file. Pure: text in, text out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::config::known::{Known, Standing, find};

/// What the chart sets itself.
const OF_THE_CHART: [&str; 4] = [
    "MY_NODE_NAME",
    "MY_POD_NAME",
    "HOST_CNI_BIN_PATH",
    "HOST_CNI_CONFDIR_PATH",
];
/// The container of the network policy agent, and what enables it.
const POLICY_AGENT: (&str, &str) = ("aws-eks-nodeagent", "--enable-network-policy=true");

/// A values file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exported {
    pub(super) text: String,
    /// Settings with which the daemon would not start.
    pub(super) refused: Vec<String>,
}

/// The values that have the same effect.
///
/// # Errors
/// If the text is no DaemonSet of the AWS VPC CNI.
pub(super) fn export(text: &str) -> Result<Exported, String> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| format!("not JSON ({error}): use kubectl's -o json"))?;
    let spec = &value["spec"]["template"]["spec"];
    if value["kind"] != "DaemonSet" || !spec["containers"].is_array() {
        return Err("not a DaemonSet".to_owned());
    }
    let Variables { given, elsewhere } = variables(spec);
    if !given.contains_key("AWS_VPC_K8S_CNI_LOGLEVEL") && !given.contains_key("AWS_VPC_ENI_MTU") {
        return Err("not the DaemonSet of the AWS VPC CNI".to_owned());
    }
    let (mut env, mut comments, mut refused) = (String::new(), String::new(), Vec::new());
    for (name, value) in &given {
        if OF_THE_CHART.contains(&name.as_str()) {
            continue;
        }
        let Some(known) = find(name) else {
            comment(&mut comments, name, value, "not a setting of Hawser");
            continue;
        };
        match known.judge(value) {
            Some(Standing::Refused(_, why)) => {
                refused.push(format!("{name}={value}"));
                comment(&mut comments, name, value, &format!("refused: {why}"));
            }
            Some(Standing::NotServed(_, why) | Standing::NotServedStock(_, why)) => {
                comment(&mut comments, name, value, &format!("not served: {why}"));
            }
            _ if is_served(known) => {
                env.push_str(&format!("  {name}: {}\n", Value::from(value.as_str())))
            }
            _ => {
                if let Some(Standing::NoEffect(why)) = known.standings.first() {
                    comment(&mut comments, name, value, &format!("no effect: {why}"));
                }
            }
        }
    }
    for what in elsewhere {
        comments.push_str(&format!("# {what}\n"));
    }
    if has_policy_agent(spec) {
        comments.push_str("# Network policies are in force: run another policy engine before a node is taken over.\n");
    }
    let env = match env.as_str() {
        "" => "env: {}\n".to_owned(),
        lines => format!("env:\n{lines}"),
    };
    Ok(Exported {
        text: comments + &env,
        refused,
    })
}

fn is_served(known: &Known) -> bool {
    known.standings.contains(&Standing::Served)
}

fn comment(comments: &mut String, name: &str, value: &str, why: &str) {
    // A value with several lines would end the comment.
    let value = Value::from(value);
    comments.push_str(&format!("# {name}={value}: {why}\n"));
}

/// The variables of containers.
#[derive(Default)]
struct Variables {
    /// With a value.
    given: BTreeMap<String, String>,
    /// Those whose value is in another object, each as a sentence.
    elsewhere: BTreeSet<String>,
}

/// Of all containers except the policy agent's. Those of the daemon win over those of the init container.
fn variables(spec: &Value) -> Variables {
    let mut all = Variables::default();
    for containers in ["initContainers", "containers"] {
        let containers = spec[containers].as_array().into_iter().flatten();
        for container in containers.filter(|c| c["name"] != POLICY_AGENT.0) {
            for variable in container["env"].as_array().into_iter().flatten() {
                all.add(variable);
            }
            for source in container["envFrom"].as_array().into_iter().flatten() {
                all.elsewhere.insert(format!(
                    "All variables of {source} are missing here: add those that Hawser knows to env."
                ));
            }
        }
    }
    all
}

impl Variables {
    fn add(&mut self, variable: &Value) {
        let Some(name) = variable["name"].as_str() else {
            return;
        };
        let source = &variable["valueFrom"];
        if source.is_null() {
            // Kubernetes takes a variable without a value for an empty one.
            let value = variable["value"].as_str().unwrap_or_default();
            self.given.insert(name.to_owned(), value.to_owned());
            return;
        }
        self.given.remove(name);
        if !OF_THE_CHART.contains(&name) {
            self.elsewhere.insert(format!(
                "{name} has its value from {source}: add it to env, if Hawser knows the setting."
            ));
        }
    }
}

fn has_policy_agent(spec: &Value) -> bool {
    let mut containers = spec["containers"].as_array().into_iter().flatten();
    containers.any(|container| {
        let mut arguments = container["args"].as_array().into_iter().flatten();
        container["name"] == POLICY_AGENT.0 && arguments.any(|text| text == POLICY_AGENT.1)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn daemonset(env: &[(&str, &str)], enabled: bool) -> String {
        let env: Vec<_> = env
            .iter()
            .map(|(name, value)| json!({ "name": name, "value": value }))
            .collect();
        json!({
            "kind": "DaemonSet",
            "spec": { "template": { "spec": {
                "initContainers": [{ "name": "aws-vpc-cni-init", "env": [
                    { "name": "ENABLE_IPv6", "value": "false" },
                    { "name": "DISABLE_TCP_EARLY_DEMUX", "value": "false" },
                ]}],
                "containers": [
                    { "name": "aws-node", "env": env },
                    { "name": "aws-eks-nodeagent", "args": [format!("--enable-network-policy={enabled}")],
                      "env": [{ "name": "MY_NODE_NAME", "value": "x" }] },
                ],
            }}},
        })
        .to_string()
    }

    #[test]
    fn served_settings_become_values_and_the_others_comments() {
        let exported = export(&daemonset(
            &[
                ("AWS_VPC_ENI_MTU", "9001"),
                ("ADDITIONAL_ENI_TAGS", "{\"a\": \"b\"}"),
                ("AWS_VPC_K8S_PLUGIN_LOG_LEVEL", "DEBUG"),
                ("MY_NODE_NAME", "node"),
                ("VPC_ID", "vpc-1"),
                ("ENABLE_POD_ENI", "false"),
            ],
            false,
        ))
        .unwrap();
        let text = &exported.text;
        assert!(text.contains("\nenv:\n  ADDITIONAL_ENI_TAGS: \"{\\\"a\\\": \\\"b\\\"}\"\n  AWS_VPC_ENI_MTU: \"9001\"\n  ENABLE_IPv6: \"false\"\n"), "{text}");
        assert!(
            text.contains("# AWS_VPC_K8S_PLUGIN_LOG_LEVEL=\"DEBUG\": no effect: "),
            "{text}"
        );
        assert!(text.contains("# VPC_ID=\"vpc-1\": "), "{text}");
        for absent in ["MY_NODE_NAME", "POD_ENI", "policies"] {
            assert!(!text.contains(absent), "{text}");
        }
        assert_eq!(exported.refused, Vec::<String>::new());
    }

    #[test]
    fn what_would_keep_the_daemon_from_starting_is_named() {
        let settings = [("AWS_VPC_ENI_MTU", "9001"), ("ENABLE_POD_ENI", "true")];
        let exported = export(&daemonset(&settings, true)).unwrap();
        assert_eq!(exported.refused, ["ENABLE_POD_ENI=true"]);
        assert!(
            exported
                .text
                .contains("# ENABLE_POD_ENI=\"true\": refused: ")
        );
        assert!(exported.text.contains("# Network policies are in force"));
    }

    #[test]
    fn variables_with_a_value_elsewhere_are_named() {
        let mut object: Value =
            serde_json::from_str(&daemonset(&[("AWS_VPC_ENI_MTU", "9001")], false)).unwrap();
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        let env = container["env"].as_array_mut().unwrap();
        env.push(json!({ "name": "WARM_IP_TARGET",
            "valueFrom": { "configMapKeyRef": { "name": "cni", "key": "warm" } } }));
        env.push(json!({ "name": "MY_NODE_NAME",
            "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }));
        container["envFrom"] = json!([{ "configMapRef": { "name": "more" } }]);
        let text = export(&object.to_string()).unwrap().text;
        for told in [
            "# WARM_IP_TARGET has its value from {\"configMapKeyRef\":{\"key\":\"warm\",\"name\":\"cni\"}}: ",
            "# All variables of {\"configMapRef\":{\"name\":\"more\"}} are missing here: ",
        ] {
            assert!(text.contains(told), "{text}");
        }
        assert!(!text.contains("MY_NODE_NAME"), "the chart sets it: {text}");
        assert!(
            !text.contains("WARM_IP_TARGET:"),
            "no value is made up: {text}"
        );
    }

    #[test]
    fn another_object_is_named() {
        for (text, why) in [
            ("apiVersion: apps/v1", "not JSON"),
            (r#"{"kind": "Deployment"}"#, "not a DaemonSet"),
            (
                &daemonset(&[], false),
                "not the DaemonSet of the AWS VPC CNI",
            ),
        ] {
            assert!(export(text).unwrap_err().contains(why), "{text}");
        }
    }
}
