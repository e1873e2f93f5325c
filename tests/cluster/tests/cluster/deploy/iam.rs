//! The IAM policies allow the calls that the daemon makes, and no others.

use std::{collections::BTreeSet, fs, path::Path};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::Outcome;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test(
            "iam::the_policies_allow_what_the_daemon_calls",
            policies_allow_calls,
        ),
        Trial::test("iam::ipv6_changes_no_interface", ipv6_changes_no_interface),
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
