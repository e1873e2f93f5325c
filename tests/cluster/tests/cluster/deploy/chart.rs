//! The chart without a cluster: what it renders, and what it says to bad values.
//!
//! May use the programs of the cluster, an API server of its own and a node of the lab. Must not know the cluster.

mod api_server;
mod eni_config;
mod fence;
mod following;
mod manifest;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use cluster::{cluster::CHART, command::run, programs};
use libtest_mimic::Trial;

use crate::Outcome;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "chart::the_definition_of_eni_configs_takes_both_forms_and_may_belong_to_others",
            eni_config::takes_both_forms_and_may_belong_to_others,
        ),
        Trial::test(
            "chart::eni_configs_come_and_go_with_the_values",
            eni_config::come_and_go_with_the_values,
        ),
        Trial::test(
            "chart::the_daemon_follows_the_eni_config",
            following::the_daemon_follows_the_eni_config,
        ),
        Trial::test(
            "chart::a_daemon_writes_a_few_fields_of_its_own_node_only",
            fence::a_daemon_writes_a_few_fields_of_its_own_node_only,
        ),
        Trial::test(
            "chart::the_manifest_is_applied_without_a_difference",
            manifest::is_applied_without_a_difference,
        ),
        Trial::test(
            "chart::bad_values_are_told_by_name",
            bad_values_are_told_by_name,
        ),
        Trial::test(
            "chart::the_manifest_is_the_rendered_chart",
            manifest::is_the_rendered_chart,
        ),
        Trial::test(
            "chart::kustomize_sets_the_image",
            manifest::kustomize_sets_the_image,
        ),
        Trial::test(
            "chart::it_knows_every_setting_of_the_daemon",
            it_knows_every_setting,
        ),
        Trial::test("chart::values_reach_the_pod", values_reach_the_pod),
        Trial::test(
            "chart::the_pods_have_no_more_rights_than_they_need",
            few_rights,
        ),
        Trial::test(
            "chart::exported_settings_of_aws_node_are_values_of_the_chart",
            exported_settings_of_aws_node_are_values_of_the_chart,
        ),
        Trial::test(
            "chart::what_only_a_takeover_needs_is_mounted_only_for_it",
            what_only_a_takeover_needs_is_mounted_only_for_it,
        ),
    ]
}

fn program(name: &str) -> std::io::Result<Command> {
    let mut command = Command::new(programs::directory()?.join(name));
    command
        .env("PATH", programs::search_path()?)
        .env("HOME", std::env::temp_dir())
        .env_remove("KUBECONFIG");
    Ok(command)
}

fn render(values: &[&str]) -> std::io::Result<String> {
    let mut helm = program("helm")?;
    helm.args(["template", "hawser", CHART, "--namespace", "kube-system"]);
    run(helm.args(values.iter().flat_map(|value| ["--set", value])))
}

fn bad_values_are_told_by_name() -> Outcome {
    for (value, told) in [
        ("image.tagg=1", "additional properties 'tagg' not allowed"),
        ("image.digest=abc", "'abc' does not match pattern"),
        (
            "terminationGracePeriodSeconds=soon",
            "got string, want integer",
        ),
        ("env.WARM_IP_TARGT=3", "did you mean WARM_IP_TARGET?"),
        (
            "env.HAWSER_RUN_DIR=/run/x",
            "is set by the chart, from paths.run",
        ),
        ("env.MAXENI=3", "did you mean MAX_ENI?"),
        ("env.WARM_IP_TARGET.a=3", "/env/WARM_IP_TARGET"),
        (
            "env.ENABLE_IPv4=true,env.ENABLE_IPv6=true",
            "addresses of one family",
        ),
        ("node.startupTaint.key=not a key", "/node/startupTaint/key"),
        ("serviceAccount.name=aws-node", "/serviceAccount/name"),
        ("serviceAccount.roleArn=role", "/serviceAccount/roleArn"),
        ("paths.cniBin=opt/cni/bin", "/paths/cniBin"),
        ("mode=remove", "/mode"),
        (
            "env.HAWSER_METRICS_ADDRESS=0.0.0.0:61679",
            "both use port 61679",
        ),
        ("eniConfig.create=true", "eniConfig.subnets names no zone"),
        (
            "eniConfig.subnets.us-west-2a.securityGroups={sg-1}",
            "missing property 'id'",
        ),
        (
            "eniConfig.subnets.a.id=10.0.0.0/24",
            "/eniConfig/subnets/a/id",
        ),
        (
            "eniConfig.subnets.a.id=subnet-1,eniConfig.subnets.a.securityGroup=sg-1",
            "additional properties 'securityGroup' not allowed",
        ),
        (
            "eniConfig.subnets.US.id=subnet-1",
            "invalid propertyName 'US'",
        ),
    ] {
        match render(&[value]) {
            Ok(_) => return Err(format!("{value} was accepted").into()),
            Err(error) => assert!(error.to_string().contains(told), "{value}: {error}"),
        }
    }
    Ok(())
}

/// The page of all settings, which a test of the daemon holds to its code, and the file that the chart reads.
fn it_knows_every_setting() -> Outcome {
    let page = fs::read_to_string(Path::new(ROOT).join("docs/settings.md"))?;
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: BTreeSet<_> = rows.filter_map(|row| row.split('`').next()).collect();
    let file = fs::read_to_string(Path::new(CHART).join("files/settings.txt"))?;
    let known: BTreeSet<_> = file.lines().collect();
    assert_eq!(known, documented);
    Ok(())
}

const DAEMONSET: &str = r#"{ "kind": "DaemonSet", "spec": { "template": { "spec": {
    "initContainers": [{ "name": "aws-vpc-cni-init", "env": [{ "name": "ENABLE_IPv6", "value": "false" }] }],
    "containers": [{ "name": "aws-node", "envFrom": [{ "configMapRef": { "name": "more" } }], "env": [
        { "name": "ADDITIONAL_ENI_TAGS", "value": "{\"a\": \"b\"}" },
        { "name": "AWS_VPC_ENI_MTU", "value": "8901" },
        { "name": "ENABLE_POD_ENI", "value": "GIVEN" },
        { "name": "WARM_IP_TARGET", "value": "5" },
        { "name": "MINIMUM_IP_TARGET", "valueFrom": { "configMapKeyRef": { "name": "cni", "key": "minimum" } } },
        { "name": "MY_NODE_NAME", "valueFrom": { "fieldRef": { "fieldPath": "spec.nodeName" } } }] }] }}}}"#;

fn exported_settings_of_aws_node_are_values_of_the_chart() -> Outcome {
    let directory = std::env::temp_dir().join(format!("hawser-export-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let (given, values) = (
        directory.join("aws-node.json"),
        directory.join("values.yaml"),
    );
    let export = |pod_eni: &str| -> std::io::Result<std::process::Output> {
        fs::write(&given, DAEMONSET.replace("GIVEN", pod_eni))?;
        let mut ipamd = Command::new(lab::node::binaries::ipamd());
        let ipamd = ipamd.args(["settings", "--from-daemonset"]).arg(&given);
        ipamd.env_clear().output()
    };
    let refused = export("true")?;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    let exported = export("false")?;
    assert_eq!(exported.status.code(), Some(0), "{exported:?}");
    let text = String::from_utf8_lossy(&exported.stdout);
    for named in [
        "# MINIMUM_IP_TARGET has its value from",
        "# All variables of",
    ] {
        assert!(text.contains(named), "{text}");
    }
    fs::write(&values, text.as_bytes())?;
    let mut helm = program("helm")?;
    helm.args([
        "template",
        "hawser",
        CHART,
        "--namespace",
        "kube-system",
        "-f",
    ]);
    let rendered = run(helm.arg(&values))?;
    for value in [
        "value: \"8901\"",
        "name: WARM_IP_TARGET",
        "name: ADDITIONAL_ENI_TAGS",
    ] {
        assert!(rendered.contains(value), "{value} is not in\n{rendered}");
    }
    fs::remove_file(&given)?;
    let missing = Command::new(lab::node::binaries::ipamd())
        .args(["settings", "--from-daemonset"])
        .arg(&given)
        .output()?;
    assert_eq!(missing.status.code(), Some(1), "{missing:?}");
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn what_only_a_takeover_needs_is_mounted_only_for_it() -> Outcome {
    let paths = ["/run/aws-node", "/run/cni", "/run/xtables.lock"];
    for (value, mounted) in [
        ("takeover.enabled=true", true),
        ("mode=handback", true),
        ("takeover.enabled=false", false),
    ] {
        let rendered = render(&[value])?;
        for path in paths {
            // Of the node, and in the container.
            let ends = |key: &str| {
                rendered.lines().any(|line| {
                    let line = line.trim();
                    line.starts_with(key) && line.ends_with(path)
                })
            };
            assert_eq!(ends("path: "), mounted, "{value}: {path}");
            assert_eq!(ends("mountPath: "), mounted, "{value}: {path}");
        }
    }
    Ok(())
}

fn values_reach_the_pod() -> Outcome {
    let digest = format!("sha256:{}", "0".repeat(64));
    let image = format!("image.digest={digest}");
    let rendered = render(&[
        &image,
        "env.WARM_IP_TARGET=100000000",
        "env.AWS_VPC_K8S_CNI_EXTERNALSNAT=true",
        "env.ENABLE_IPv6=true",
        "podMonitor.enabled=true",
        "serviceAccount.roleArn=arn:aws:iam::111122223333:role/hawser",
        "seLinuxOptions.type=spc_t",
        "node.events=false",
        "env.AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG=true",
    ])?;
    for text in [
        format!("image: hawser@{digest}").as_str(),
        "value: \"100000000\"",
        "path: /proc/sys/net",
        "kind: PodMonitor",
        "eks.amazonaws.com/role-arn: arn:aws:iam::111122223333:role/hawser",
        "type: spc_t",
        "drop: [ALL]",
        "hostPort: 61678",
        "name: hawser-eni-config",
        "values:\n                - fargate",
    ] {
        assert!(rendered.contains(text), "{text} is not in\n{rendered}");
    }
    assert!(
        !rendered.contains("hawser-events"),
        "the right went with the feature"
    );
    assert!(
        !render(&[])?.contains("eniconfigs"),
        "the right comes with the feature"
    );
    Ok(())
}

/// Both containers have a security context of their own. What the AWS VPC CNI has left is removed too.
fn few_rights() -> Outcome {
    for (values, host_paths) in [
        (&[][..], 3),
        (&["env.ENABLE_IPv6=true"], 4),
        (&["mode=uninstall"], 6),
    ] {
        let rendered = render(values)?;
        for refused in ["privileged: true", "hostPID", "hostIPC", "SYS_ADMIN"] {
            assert!(!rendered.contains(refused), "{values:?} has {refused}");
        }
        assert_eq!(
            rendered.matches("hostPath:").count(),
            host_paths,
            "{values:?}"
        );
        let containers = rendered.matches("drop: [ALL]").count();
        assert_ne!(containers, 0, "{values:?}");
        for wanted in [
            "allowPrivilegeEscalation: false",
            "readOnlyRootFilesystem: true",
        ] {
            assert_eq!(
                rendered.matches(wanted).count(),
                containers,
                "{values:?}: {wanted}"
            );
        }
        assert_eq!(rendered.matches("NET_ADMIN").count(), 1, "{values:?}");
    }
    Ok(())
}
