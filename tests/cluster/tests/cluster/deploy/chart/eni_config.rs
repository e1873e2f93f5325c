//! The custom resource ENIConfig of the chart, with a real API server and without nodes: what it takes, and that it may
//! belong to others.

use cluster::cluster::CHART;
use serde_json::{Value, json};

use super::api_server::Server;
use crate::Outcome;

const DEFINITION: &str = "eniconfigs.crd.k8s.amazonaws.com";

fn config(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: crd.k8s.amazonaws.com/v1alpha1\nkind: ENIConfig\nmetadata: {{ name: {name} }}\nspec: {spec}\n"
    )
}

/// As the AWS VPC CNI's chart installs it.
const OF_OTHERS: &str = "apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: eniconfigs.crd.k8s.amazonaws.com
  labels: { app.kubernetes.io/managed-by: Helm }
  annotations: { meta.helm.sh/release-name: aws-vpc-cni, meta.helm.sh/release-namespace: kube-system }
spec:
  group: crd.k8s.amazonaws.com
  names: { kind: ENIConfig, plural: eniconfigs, singular: eniconfig }
  scope: Cluster
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: { openAPIV3Schema: { type: object, x-kubernetes-preserve-unknown-fields: true } }
";

pub(super) fn takes_both_forms_and_may_belong_to_others() -> Outcome {
    let server = Server::start()?;
    server.helm("install", &[CHART])?;
    server.kubectl(&[
        "wait",
        "--for=condition=established",
        "crd",
        DEFINITION,
        "--timeout=60s",
    ])?;
    server.apply(&config(
        "one",
        "{ subnet: subnet-1, securityGroups: [sg-1], other: 1 }",
    ))?;
    server.apply(&config(
        "several",
        "{ subnet: subnet-1, subnets: [{ id: subnet-1, weight: 1 }, { id: subnet-2 }] }",
    ))?;
    let wrong = server.apply(&config("wrong", "{ subnet: 7, subnets: [{ weight: 1 }] }"));
    let error = wrong
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default();
    assert!(
        error.contains("spec.subnets[0].id") && error.contains("spec.subnet"),
        "{error}"
    );
    server.helm("upgrade", &[CHART])?;
    server.helm("uninstall", &[])?;
    let kept = server.kubectl(&["get", "eniconfigs", "-o", "name"])?;
    assert!(kept.contains("/one") && kept.contains("/several"), "{kept}");

    server.kubectl(&["delete", "crd", DEFINITION, "--wait"])?;
    server.apply(OF_OTHERS)?;
    server.helm("install", &[CHART])?;
    server.helm("upgrade", &[CHART])?;
    server.helm("uninstall", &[])?;
    let annotations = server.kubectl(&[
        "get",
        "crd",
        DEFINITION,
        "-o",
        "jsonpath={.metadata.annotations}",
    ])?;
    assert!(annotations.contains("aws-vpc-cni"), "{annotations}");
    Ok(())
}

/// Removed with its zone and with the release, and kept when the nodes are given back to the AWS VPC CNI.
pub(super) fn come_and_go_with_the_values() -> Outcome {
    let server = Server::start()?;
    let list = || server.kubectl(&["get", "eniconfigs", "-o", "name"]);
    let values = [
        CHART,
        "--set",
        "eniConfig.create=true",
        "--set",
        "eniConfig.subnets.us-west-2a.id=subnet-1",
        "--set",
        "eniConfig.subnets.us-west-2a.securityGroups={sg-1}",
        "--set",
        "eniConfig.subnets.us-west-2a.subnets[0].id=subnet-1",
        "--set",
        "eniConfig.subnets.us-west-2a.subnets[0].weight=1",
    ];
    let other = ["--set", "eniConfig.subnets.us-west-2b.id=subnet-2"];
    server.helm("install", &[&values[..], &other].concat())?;
    let spec = ["get", "eniconfig", "us-west-2a", "-o", "jsonpath={.spec}"];
    let spec: Value = serde_json::from_str(&server.kubectl(&spec)?)?;
    let expected = json!({
        "subnet": "subnet-1",
        "securityGroups": ["sg-1"],
        "subnets": [{ "id": "subnet-1", "weight": 1 }],
    });
    assert_eq!(spec, expected);
    assert!(list()?.contains("/us-west-2b"));
    server.helm("upgrade", &values)?;
    assert!(!list()?.contains("/us-west-2b"));
    server.helm("uninstall", &[])?;
    assert_eq!(list()?, "");

    server.helm("install", &values)?;
    server.helm(
        "upgrade",
        &[&values[..], &["--set", "mode=handback"]].concat(),
    )?;
    server.helm("uninstall", &[])?;
    assert!(list()?.contains("/us-west-2a"));
    Ok(())
}
