//! The examples of clusters agree with the chart, the policies and the pod limits that they repeat.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use lab::node::binaries;
use libtest_mimic::{Failed, Trial};

use super::iam;
use crate::{Outcome, setup::TAINT};

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("examples::kops_allows_what_the_policy_allows", kops_policy),
        Trial::test("examples::new_nodes_have_the_charts_taint", taints),
        Trial::test("examples::files_that_are_named_exist", files_exist),
        Trial::test(
            "examples::kubeadm_has_the_pod_limit_of_its_instance_type",
            pod_limit,
        ),
        Trial::test(
            "examples::terraform_pins_the_version_of_the_helm_provider_that_has_set_blocks",
            helm_provider,
        ),
    ]
}

fn read(name: &str) -> Result<String, Failed> {
    fs::read_to_string(Path::new(EXAMPLES).join(name)).map_err(|e| format!("{name}: {e}").into())
}

fn kops_policy() -> Outcome {
    let text = read("kops.yaml")?;
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ':');
    let actions = words.filter(|word| word.starts_with("ec2:") && word.len() > "ec2:".len());
    // In the name of a resource, "ec2" is followed by the region.
    let actions: BTreeSet<_> = actions.map(str::to_owned).collect();
    assert_eq!(actions, iam::allowed("ipv4.json")?);
    Ok(())
}

fn taints() -> Outcome {
    for name in ["eks.tf", "eksctl.yaml", "kubeadm.yaml"] {
        let keys: Vec<_> = read(name)?
            .lines()
            .map(|line| line.trim().trim_start_matches("- "))
            .filter(|line| line.starts_with("key"))
            .filter_map(|line| line.split([':', '=']).nth(1))
            .map(|key| key.trim().trim_matches('"').to_owned())
            .collect();
        assert_eq!(keys, [TAINT], "{name}");
    }
    Ok(())
}

fn files_exist() -> Outcome {
    let mut found = 0;
    for name in ["eks.tf", "eksctl.yaml", "kops.yaml", "kubeadm.yaml"] {
        let text = read(name)?;
        for path in text.split(['"', ' ', '\n']) {
            let path = path.trim_end_matches(['.', ',', ':']);
            let beside = path.strip_prefix("${path.module}/");
            let in_checkout = path
                .strip_prefix("deploy/")
                .map(|rest| format!("../{rest}"));
            let Some(path) = beside.map(str::to_owned).or(in_checkout) else {
                continue;
            };
            assert!(
                Path::new(EXAMPLES).join(&path).exists(),
                "{name} names {path}"
            );
            found += 1;
        }
    }
    assert!(found >= 4, "the search has found {found} paths only");
    Ok(())
}

/// "maxPods: 29 # m5.large" is what `ipamd max-pods` calculates.
fn pod_limit() -> Outcome {
    let text = read("kubeadm.yaml")?;
    let line = text.lines().find_map(|line| line.strip_prefix("maxPods: "));
    let (limit, kind) = line
        .and_then(|line| line.split_once(" # "))
        .ok_or("kubeadm.yaml has no maxPods with an instance type")?;
    let calculated = Command::new(binaries::ipamd())
        .args(["max-pods", kind])
        .output()?;
    assert_eq!(String::from_utf8(calculated.stdout)?.trim(), limit);
    Ok(())
}

fn helm_provider() -> Outcome {
    let dense: String = read("eks.tf")?.split_whitespace().collect();
    let provider = r#"helm={source="hashicorp/helm"version="~>2."#;
    assert_eq!(dense.contains("set{"), dense.contains(provider));
    assert!(dense.contains("set{"), "the example sets values");
    Ok(())
}
