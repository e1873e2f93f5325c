//! The IAM policies allow the calls that the daemon makes, and no others.

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use lab::{Lab, subnets::with_pod_subnets, wait::eventually};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use vpc_sim::{Action, Fault, SimConfig};

use crate::Outcome;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "iam::the_policies_allow_what_the_daemon_calls",
            policies_allow_calls,
        ),
        Trial::test("iam::ipv6_changes_no_interface", ipv6_changes_no_interface),
        Trial::test(
            "iam::an_ipv4_daemon_lives_with_its_policy",
            ipv4_lives_with_its_policy,
        ),
        Trial::test(
            "iam::an_ipv6_daemon_lives_with_its_policy",
            ipv6_lives_with_its_policy,
        ),
    ]
}

fn policies_allow_calls() -> Outcome {
    let mut called = BTreeSet::new();
    for file in ["aws.rs", "aws/instance_types.rs", "aws/subnets.rs"] {
        called.extend(calls(&Path::new(ROOT).join("ipamd/src/ec2").join(file))?);
    }
    // CreateNetworkInterface with tags needs this too.
    called.insert("ec2:CreateTags".to_owned());
    let both = &allowed("ipv4.json")? | &allowed("ipv6.json")?;
    assert_eq!(both, called);
    assert_eq!(allowed("ipv4-scoped.json")?, allowed("ipv4.json")?);
    Ok(())
}

fn ipv6_changes_no_interface() -> Outcome {
    let allowed = allowed("ipv6.json")?;
    let changes = allowed
        .iter()
        .filter(|action| !action.contains(":Describe"));
    let changes: Vec<_> = changes.collect();
    assert_eq!(
        changes,
        ["ec2:AssignIpv6Addresses", "ec2:UnassignIpv6Addresses"]
    );
    Ok(())
}

/// The EC2 client's methods that a source file calls, as IAM names them.
fn calls(file: &Path) -> std::io::Result<BTreeSet<String>> {
    let text = fs::read_to_string(file)?;
    let dense: String = text.split_whitespace().collect();
    let methods = dense.split("client.").skip(1);
    let methods = methods.filter_map(|rest| rest.split_once("()").map(|(name, _)| name));
    let methods =
        methods.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
    Ok(methods.map(action).collect())
}

/// `describe_subnets` is `ec2:DescribeSubnets`.
fn action(method: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|c| c.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    format!("ec2:{}", method.split('_').map(capital).collect::<String>())
}

pub fn allowed(policy: &str) -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let text = fs::read_to_string(Path::new(ROOT).join("deploy/iam").join(policy))?;
    let policy: Value = serde_json::from_str(&text)?;
    assert_eq!(policy["Version"], "2012-10-17");
    let mut allowed = BTreeSet::new();
    for statement in policy["Statement"].as_array().into_iter().flatten() {
        assert_eq!(statement["Effect"], "Allow");
        match &statement["Action"] {
            Value::String(action) => {
                allowed.insert(action.clone());
            }
            actions => {
                let actions = actions.as_array().into_iter().flatten();
                allowed.extend(actions.filter_map(|action| action.as_str().map(str::to_owned)));
            }
        }
    }
    Ok(allowed)
}

const DENIED: &str = "UnauthorizedOperation";
/// An ENI is kept for a minute before it is given back.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs a daemon while its pool grows and shrinks. EC2 refuses what the policy does not allow. Returns the actions that
/// the daemon has called.
fn called(
    lab: &Lab,
    policy: &str,
    settings: &[(&str, &str)],
    last: Action,
) -> Result<BTreeSet<String>, Failed> {
    let allowed = allowed(policy)?;
    for action in Action::ALL {
        if !allowed.contains(&format!("ec2:{action}")) {
            lab.sim
                .faults()
                .push(Fault::error(*action, u32::MAX, DENIED));
        }
    }
    let node = lab.node("t3.small", settings)?;
    let pods: Vec<_> = (0..6)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    for pod in pods {
        node.delete_pod(pod)?;
    }
    let called = || {
        let calls = lab.sim.calls();
        let names = calls.iter().map(|call| format!("ec2:{}", call.action));
        names.collect::<BTreeSet<_>>()
    };
    let ended = eventually(PATIENCE, || called().contains(&format!("ec2:{last}")));
    assert!(ended, "no {last}: {:?}\n{}", called(), node.log());
    let refused = vpc_sim::Outcome::Refused(DENIED.to_owned());
    let refused: Vec<_> = lab
        .sim
        .calls()
        .into_iter()
        .filter(|call| call.outcome == refused)
        .collect();
    assert!(refused.is_empty(), "{policy}: {refused:?}");
    Ok(called())
}

/// What a policy allows without these actions, which a run does not need. None needs DescribeInstanceTypes, which is called for
/// a type that Hawser does not know. EC2 checks CreateTags for CreateNetworkInterface with tags.
fn needed(policy: &str, without: &[&str]) -> Result<BTreeSet<String>, Box<dyn std::error::Error>> {
    let mut needed = allowed(policy)?;
    for action in [&["ec2:DescribeInstanceTypes"], without].concat() {
        assert!(needed.remove(action), "{policy} does not allow {action}");
    }
    Ok(needed)
}

fn ipv4_lives_with_its_policy() -> Outcome {
    let lab = Lab::start(with_pod_subnets(&["100.64.1.0/24"])?)?;
    let settings = [
        ("WARM_IP_TARGET", "1"),
        ("IP_COOLDOWN_PERIOD", "1"),
        ("CLUSTER_NAME", "example"),
    ];
    let called = called(&lab, "ipv4.json", &settings, Action::DeleteNetworkInterface)?;
    assert_eq!(called, needed("ipv4.json", &["ec2:CreateTags"])?);
    let calls = lab.sim.calls();
    let mut creations = calls
        .iter()
        .filter(|call| call.action == Action::CreateNetworkInterface.name());
    let tag = "Key=cluster.k8s.amazonaws.com/name";
    assert!(creations.all(|call| call.params.contains(tag)), "{calls:?}");
    Ok(())
}

fn ipv6_lives_with_its_policy() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let settings = [
        ("ENABLE_IPv4", "false"),
        ("ENABLE_IPv6", "true"),
        ("ENABLE_PREFIX_DELEGATION", "true"),
    ];
    let called = called(&lab, "ipv6.json", &settings, Action::AssignIpv6Addresses)?;
    // `ipamd doctor` looks at the subnet. One prefix is enough for all pods, so none is given back.
    let without = ["ec2:DescribeSubnets", "ec2:UnassignIpv6Addresses"];
    assert_eq!(called, needed("ipv6.json", &without)?);
    Ok(())
}
