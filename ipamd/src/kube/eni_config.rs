//! The node's ENIConfig: which one it is, and what it means for new ENIs. Pure.
//!
//! Names and precedence are the AWS VPC CNI's. The first key that is present decides, even if its value is stale or empty.

use kube::api::{DynamicObject, ObjectMeta};
use planner::{
    EniClass, SecurityGroupId, SubnetId,
    placement::{Listed, NoClass, Selector},
};
use serde::Deserialize;

use crate::config::EniConfigKeys;

/// The group, version and kind of the custom resource.
pub(super) const GROUP: &str = "crd.k8s.amazonaws.com";
pub(super) const VERSION: &str = "v1alpha1";
pub(super) const KIND: &str = "ENIConfig";

/// A label for programs outside the cluster, such as a node's bootstrap.
const EXTERNAL: &str = "vpc.amazonaws.com/externalEniConfig";
const DEFAULT: &str = "default";

/// The name of the node's ENIConfig.
pub(super) fn name_of(node: &ObjectMeta, keys: &EniConfigKeys) -> String {
    let labels = node.labels.as_ref();
    let annotations = node.annotations.as_ref();
    let label = |key: &str| labels.and_then(|all| all.get(key));
    let annotation = |key: &str| annotations.and_then(|all| all.get(key));
    let named = label(EXTERNAL)
        .or_else(|| annotation(&keys.annotation))
        .or_else(|| label(&keys.label));
    named.map_or(DEFAULT, String::as_str).to_owned()
}

/// What the API server says about an ENIConfig.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Reading {
    Found(Box<DynamicObject>),
    Missing,
    /// The error, as a clause.
    Unreadable(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    subnet: String,
    #[serde(default)]
    security_groups: Vec<String>,
    /// An extension: several subnets. The AWS VPC CNI reads only `subnet`.
    #[serde(default)]
    subnets: Vec<SubnetEntry>,
}

#[derive(Deserialize)]
struct SubnetEntry {
    id: String,
    #[serde(default)]
    weight: u32,
}

/// The class that an ENIConfig means, or why it cannot be used.
pub(super) fn class_of(name: &str, config: &DynamicObject) -> Result<EniClass, NoClass> {
    let wrong = |what: String| NoClass {
        why: format!("the ENIConfig {name} {what}"),
        remedy: format!(
            "correct the ENIConfig {name}: spec.subnet is the id of a subnet, spec.securityGroups is a list of ids"
        ),
    };
    let spec = config.data.get("spec").cloned().unwrap_or_default();
    let spec: Spec = serde_json::from_value(spec)
        .map_err(|error| wrong(format!("is not usable: spec: {error}")))?;
    let listed = |entry: SubnetEntry| Listed {
        subnet: SubnetId(entry.id.trim().to_owned()),
        weight: entry.weight,
    };
    let mut subnets: Vec<Listed> = spec.subnets.into_iter().map(listed).collect();
    if subnets.is_empty() {
        subnets.push(Listed {
            subnet: SubnetId(spec.subnet.trim().to_owned()),
            weight: 0,
        });
    }
    if let Some(one) = subnets
        .iter()
        .find(|one| !one.subnet.0.starts_with("subnet-"))
    {
        return Err(wrong(format!(
            "has \"{}\" for a subnet, which is not the id of one",
            one.subnet
        )));
    }
    let groups = spec.security_groups.into_iter();
    let groups: Vec<_> = groups
        .map(|id| SecurityGroupId(id.trim().to_owned()))
        .collect();
    if let Some(id) = groups.iter().find(|id| !id.0.starts_with("sg-")) {
        return Err(wrong(format!(
            "has \"{id}\" for a security group, which is not the id of one"
        )));
    }
    Ok(EniClass {
        name: format!("ENIConfig {name}"),
        subnets: Selector::Listed(subnets),
        security_groups: (!groups.is_empty()).then_some(groups),
        primary_serves: false,
    })
}

/// Which class the pool has been told.
#[derive(Debug)]
pub(super) struct Follower {
    keys: EniConfigKeys,
    known: Result<EniClass, NoClass>,
}

impl Follower {
    /// `known`: what the pool started with.
    pub(super) const fn new(keys: EniConfigKeys, known: Result<EniClass, NoClass>) -> Self {
        Self { keys, known }
    }

    /// What is new for the pool. What cannot be read changes nothing if a class is known.
    pub(super) fn read(
        &mut self,
        name: &str,
        reading: Reading,
    ) -> Option<Result<EniClass, NoClass>> {
        let class = match reading {
            Reading::Found(config) => class_of(name, &config),
            Reading::Missing => Err(self.missing(name)),
            Reading::Unreadable(_) if self.known.is_ok() => return None,
            Reading::Unreadable(error) => Err(NoClass {
                why: format!("the ENIConfig {name} cannot be read: {error}"),
                remedy: "check that the custom resource ENIConfig is installed, and that the daemon's ServiceAccount may \
                         list and watch it"
                    .to_owned(),
            }),
        };
        if class == self.known {
            return None;
        }
        self.known = class.clone();
        Some(class)
    }

    fn missing(&self, name: &str) -> NoClass {
        let EniConfigKeys { annotation, label } = &self.keys;
        NoClass {
            why: format!("the ENIConfig \"{name}\" of this node does not exist"),
            remedy: format!(
                "create it, or name another one in the Node's label {EXTERNAL}, its annotation {annotation} or its label \
                 {label}"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Value, json};

    use super::*;

    type Pairs<'a> = &'a [(&'a str, &'a str)];

    fn named(labels: Pairs<'_>, annotations: Pairs<'_>, keys: &EniConfigKeys) -> String {
        let map = |pairs: Pairs<'_>| -> Option<BTreeMap<String, String>> {
            let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            Some(pairs.iter().map(owned).collect())
        };
        let node = ObjectMeta {
            labels: map(labels),
            annotations: map(annotations),
            ..ObjectMeta::default()
        };
        name_of(&node, keys)
    }

    #[test]
    fn the_first_key_that_is_present_names_the_eni_config() {
        const KEY: &str = "k8s.amazonaws.com/eniConfig";
        let keys = EniConfigKeys::default();
        let states = [None, Some(""), Some("x")];
        for external in states {
            for annotation in states {
                for label in states {
                    let pair = |key, value: Option<&'static str>| value.map(|value| (key, value));
                    let labels = [pair(EXTERNAL, external), pair(KEY, label.map(|_| "label"))];
                    let labels: Vec<_> = labels.into_iter().flatten().collect();
                    let labels: Vec<_> = labels
                        .into_iter()
                        .map(|(key, value)| {
                            (
                                key,
                                if value == "label" {
                                    label.unwrap()
                                } else {
                                    value
                                },
                            )
                        })
                        .collect();
                    let annotations: Vec<_> = pair(KEY, annotation).into_iter().collect();
                    let wanted = external.or(annotation).or(label).unwrap_or("default");
                    assert_eq!(
                        named(&labels, &annotations, &keys),
                        wanted,
                        "{external:?} {annotation:?} {label:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_of_the_operators_own_replace_the_default_ones() {
        let keys = EniConfigKeys {
            annotation: "a".to_owned(),
            label: "topology.kubernetes.io/zone".to_owned(),
        };
        let zone = [("topology.kubernetes.io/zone", "us-west-2a")];
        assert_eq!(named(&zone, &[], &keys), "us-west-2a");
        let stock = [("k8s.amazonaws.com/eniConfig", "no")];
        assert_eq!(named(&stock, &stock, &keys), "default");
        assert_eq!(named(&zone, &[("a", "stale")], &keys), "stale");
    }

    fn config(spec: Value) -> DynamicObject {
        let object = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            "metadata": { "name": "a" }, "spec": spec,
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_eni_config_has_one_subnet_or_several() {
        let one = class_of("a", &config(json!({ "subnet": "subnet-1" }))).unwrap();
        let listed = |subnet: &str, weight| Listed {
            subnet: subnet.into(),
            weight,
        };
        assert_eq!(one.subnets, Selector::Listed(vec![listed("subnet-1", 0)]));
        assert_eq!((one.security_groups, one.primary_serves), (None, false));
        let several = config(json!({
            "subnet": "subnet-1",
            "subnets": [{ "id": "subnet-1", "weight": 2 }, { "id": "subnet-2" }],
            "securityGroups": ["sg-1", "sg-2"],
        }));
        let several = class_of("a", &several).unwrap();
        let subnets = vec![listed("subnet-1", 2), listed("subnet-2", 0)];
        assert_eq!(several.subnets, Selector::Listed(subnets));
        let groups = vec!["sg-1".into(), "sg-2".into()];
        assert_eq!(several.security_groups, Some(groups));
    }

    #[test]
    fn a_wrong_eni_config_is_named_with_what_is_wrong() {
        for (spec, text) in [
            (json!({}), "has \"\" for a subnet"),
            (json!({ "subnet": "10.0.0.0/24" }), "\"10.0.0.0/24\""),
            (
                json!({ "subnet": "subnet-1", "securityGroups": ["default"] }),
                "\"default\"",
            ),
            (
                json!({ "subnet": "subnet-1", "securityGroups": "sg-1" }),
                "spec: ",
            ),
            (json!("subnet-1"), "spec: "),
        ] {
            let error = class_of("a", &config(spec.clone())).unwrap_err();
            assert!(error.why.contains(text), "{spec}: {error}");
            assert!(error.why.contains("ENIConfig a"), "{spec}: {error}");
        }
    }

    fn unknown() -> NoClass {
        NoClass {
            why: "not read yet".to_owned(),
            remedy: String::new(),
        }
    }

    fn found(subnet: &str) -> Reading {
        Reading::Found(Box::new(config(json!({ "subnet": subnet }))))
    }

    #[test]
    fn what_cannot_be_read_changes_nothing_that_is_known() {
        let mut follower = Follower::new(EniConfigKeys::default(), Err(unknown()));
        let away = || Reading::Unreadable("no route".to_owned());
        let told = follower.read("a", away()).unwrap().unwrap_err();
        assert!(told.why.contains("no route"), "{told}");
        assert!(follower.read("a", found("subnet-1")).unwrap().is_ok());
        assert_eq!(follower.read("a", found("subnet-1")), None, "nothing new");
        assert_eq!(follower.read("a", away()), None);
        assert_eq!(
            follower.read("b", away()),
            None,
            "another name is not known to exist"
        );
        let gone = follower.read("b", Reading::Missing).unwrap().unwrap_err();
        assert!(
            gone.why.contains("\"b\" of this node does not exist"),
            "{gone}"
        );
        assert!(
            gone.remedy.contains("k8s.amazonaws.com/eniConfig"),
            "{gone:?}"
        );
    }
}
