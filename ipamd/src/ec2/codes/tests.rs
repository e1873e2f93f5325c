//! Walks the table: every row has one meaning for every call, a text and a remedy that fits, and is on the page.

use std::{collections::BTreeSet, fs, path::Path};

use planner::{Amount, AttachmentId, Class, EniId, Rest, SubnetId};

use super::*;
use crate::ec2::{
    api::{Call, CallError},
    classify::classify,
};

const REGION: &str = "eu-west-1";

/// Every call of the daemon.
fn calls() -> Vec<Call> {
    let eni = || EniId::from("eni-1");
    let attachment = || AttachmentId::from("eni-attach-1");
    let create = |amount| Call::CreateNetworkInterface {
        token: "t".into(),
        subnet: SubnetId::from("subnet-1"),
        groups: vec![],
        description: String::new(),
        tags: [].into(),
        amount,
    };
    let assign = |amount| Call::AssignPrivateIpAddresses { eni: eni(), amount };
    vec![
        create(Amount::Addresses(1)),
        create(Amount::Prefixes(1)),
        assign(Amount::Addresses(1)),
        assign(Amount::Prefixes(1)),
        assign(Amount::Ipv6Prefixes(1)),
        Call::AttachNetworkInterface {
            eni: eni(),
            instance: "i-1".into(),
            card: 0,
            device: 1,
        },
        Call::DeleteOnTermination {
            eni: eni(),
            attachment: attachment(),
        },
        Call::SetGroups {
            eni: eni(),
            groups: vec![],
        },
        Call::DetachNetworkInterface {
            attachment: attachment(),
        },
        Call::DeleteNetworkInterface { eni: eni() },
        Call::UnassignPrivateIpAddresses {
            eni: eni(),
            addresses: vec![],
            prefixes: vec![],
        },
        Call::UnassignIpv6Addresses {
            eni: eni(),
            prefixes: vec![],
        },
        Call::DescribeNetworkInterfaces { filters: vec![] },
        Call::DescribeSubnets { filters: vec![] },
        Call::DescribeRouteTables {
            vpc: "vpc-1".into(),
        },
    ]
}

/// EC2's answer for a row.
fn answer(call: &Call, row: &Row) -> CallError {
    CallError {
        action: call.action(),
        code: Some(row.code.to_owned()),
        message: format!("{}: EC2 says: {}.", row.code, row.saying.unwrap_or("no")),
        refused: true,
    }
}

fn is_meant(class: &Class, meaning: Meaning, call: &Call) -> bool {
    match meaning {
        Meaning::Throttled => *class == Class::Throttled { retry_after: None },
        Meaning::NoAddress => *class == Class::Exhausted,
        Meaning::NoBlock => *class == Class::Fragmented,
        Meaning::NoRoom => matches!(class, Class::Exhausted | Class::Fragmented),
        Meaning::Limit => *class == Class::Limit,
        Meaning::NotFound => *class == Class::NotFound,
        Meaning::InUse => *class == Class::InUse,
        Meaning::Denied => matches!(class, Class::Denied { .. }),
        Meaning::Refused(rest) => *class == Class::Refused(rest),
        Meaning::Internal if call.reads() => *class == Class::Transient,
        Meaning::Internal => *class == Class::Ambiguous,
    }
}

#[test]
fn every_code_has_its_class_text_and_remedy_for_every_call() {
    for (call, row) in calls()
        .iter()
        .flat_map(|call| TABLE.iter().map(move |row| (call, row)))
    {
        let failure = classify(call, &answer(call, row), REGION);
        let what = format!("{} {}", call.action(), row.code);
        assert!(
            is_meant(&failure.class, row.meaning, call),
            "{what}: {failure:?}"
        );
        for text in [call.action(), row.code] {
            assert_eq!(
                failure.message.matches(text).count(),
                1,
                "{what}: {failure}"
            );
        }
        assert!(!failure.message.ends_with('.'), "{failure}");
        assert!(
            !failure.remedy.is_empty() && !failure.remedy.contains('{'),
            "{failure:?}"
        );
        assert!(
            !failure.remedy.contains("DNS") && !failure.remedy.contains("route"),
            "{failure:?}"
        );
        let prefixed = CallError {
            code: Some(format!("Client.{}", row.code)),
            ..answer(call, row)
        };
        assert_eq!(
            classify(call, &prefixed, REGION).class,
            failure.class,
            "{what}"
        );
    }
}

#[test]
fn no_row_hides_another() {
    let mut seen = BTreeSet::new();
    for row in TABLE {
        assert!(
            seen.insert((row.code, row.saying)),
            "{} is there twice",
            row.code
        );
        let general = seen.contains(&(row.code, None));
        assert!(
            !general || row.saying.is_none(),
            "{:?} is never found",
            row.saying
        );
        assert!(
            !row.text.is_empty() && !row.text.ends_with('.'),
            "{}",
            row.code
        );
    }
}

#[test]
fn a_lasting_refusal_names_what_somebody_must_change() {
    for row in TABLE {
        if row.meaning == Meaning::Refused(Rest::Long) {
            assert!(!row.remedy.starts_with("no action needed"), "{}", row.code);
        }
        if row.meaning == Meaning::Refused(Rest::Long) && row.code.contains("LimitExceeded") {
            let helps = ["Service Quotas", "set fewer tags", "names the parameter"];
            assert!(
                helps.iter().any(|word| row.remedy.contains(word)),
                "{}",
                row.code
            );
        }
    }
}

#[test]
fn a_new_code_is_read_by_its_pattern() {
    for (code, meaning) in [
        ("VpcNewThingLimitExceeded", Meaning::Refused(Rest::Long)),
        ("InvalidThingID.NotFound", Meaning::NotFound),
        ("InvalidThingID.Malformed", Meaning::Refused(Rest::Long)),
        ("SomethingElse", Meaning::Refused(Rest::Short)),
    ] {
        assert_eq!(row(code, "").meaning, meaning, "{code}");
        assert_eq!(bounded(code), "other");
    }
    assert_eq!(bounded("Client.Blocked"), "Blocked");
}

#[test]
fn iams_own_words_name_the_action_and_the_reason() {
    let create = &calls()[0];
    let denied = |message: &str| {
        let error = CallError {
            action: create.action(),
            code: Some("UnauthorizedOperation".into()),
            message: format!("UnauthorizedOperation: {message}"),
            refused: true,
        };
        classify(create, &error, REGION)
    };
    let told = denied(
        "You are not authorized to perform this operation. User: arn:aws:sts::1:assumed-role/n/i-1 is not authorized to \
         perform: ec2:CreateTags on resource: arn:aws:ec2:eu-west-1:1:network-interface/* because no identity-based \
         policy allows the ec2:CreateTags action. Encoded authorization failure message: p3aIEfn_U6S085tVJjmJKcR59Ca",
    );
    let class = Class::Denied {
        action: "ec2:CreateTags".into(),
        why: Some("no identity-based policy allows the ec2:CreateTags action".into()),
    };
    assert_eq!(told.class, class);
    assert!(
        !told.message.contains("Encoded") && !told.message.contains("p3aIE"),
        "{told}"
    );
    let encoded = denied(
        "You are not authorized to perform this operation. Encoded authorization failure message: p3aIE",
    );
    let class = Class::Denied {
        action: "ec2:CreateNetworkInterface".into(),
        why: None,
    };
    assert_eq!(encoded.class, class);
    assert!(
        encoded.message.ends_with("perform this operation"),
        "{encoded}"
    );
}

#[test]
fn the_page_has_every_row_and_no_other() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ec2-errors.md");
    let page = fs::read_to_string(path).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<&str> = rows.collect();
    let known: Vec<String> = TABLE.iter().map(line).collect();
    for (told, known) in told.iter().zip(&known) {
        assert_eq!(told, known);
    }
    assert_eq!(told.len(), known.len());
}

fn line(row: &Row) -> String {
    let saying = row
        .saying
        .map_or(String::new(), |words| format!(", \"{words}\""));
    let (code, meaning, text) = (row.code, row.meaning.name(), row.text);
    let remedy = row.remedy.replace("{region}", "the region");
    format!("| `{code}`{saying} | {meaning} | {text} | {remedy} |")
}
