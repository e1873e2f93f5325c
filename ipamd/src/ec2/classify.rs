//! From a failed call to its meaning for the planner: the class, a text and a remedy.
//!
//! [`codes`](super::codes) knows the codes. A failure without a code is [`Class::Transient`] if the call was never sent or
//! only reads, otherwise [`Class::Ambiguous`].

use planner::{Amount, Class, Failure};

use crate::ec2::{
    api::{Call, CallError},
    codes::{self, Meaning},
};

/// Converts a failed `call` for the planner. `region`: where the account's quotas are.
#[must_use]
pub fn classify(call: &Call, error: &CallError, region: &str) -> Failure {
    let Some(code) = &error.code else {
        let class = if error.refused || call.reads() {
            Class::Transient
        } else {
            Class::Ambiguous
        };
        return Failure::new(class, error.to_string());
    };
    let row = codes::row(code, &error.message);
    Failure {
        class: class(call, row.meaning, &error.message),
        message: said(error),
        remedy: row.remedy_in(region),
    }
}

fn class(call: &Call, meaning: Meaning, message: &str) -> Class {
    match meaning {
        Meaning::Throttled => Class::Throttled { retry_after: None },
        Meaning::NoAddress => Class::Exhausted,
        Meaning::NoBlock => Class::Fragmented,
        // A subnet that is too small for a prefix may have free addresses.
        Meaning::NoRoom if wants_prefixes(call) => Class::Fragmented,
        Meaning::NoRoom => Class::Exhausted,
        Meaning::Limit => Class::Limit,
        Meaning::NotFound => Class::NotFound,
        Meaning::InUse => Class::InUse,
        Meaning::Denied => denial(call, message),
        Meaning::Refused(rest) => Class::Refused(rest),
        Meaning::Internal if call.reads() => Class::Transient,
        Meaning::Internal => Class::Ambiguous,
    }
}

/// What IAM denies: "… is not authorized to perform: ec2:CreateTags on resource: … because …". One call may need several
/// actions, so EC2's word counts and not the call's name.
fn denial(call: &Call, message: &str) -> Class {
    let named = message.split_once("not authorized to perform: ");
    let named = named.map_or("", |(_, rest)| rest);
    let action = named.split([' ', ',']).next().unwrap_or_default();
    let why = named.split_once(" because ").map(|(_, rest)| rest);
    let why = why.map(|rest| rest.split(". ").next().unwrap_or(rest));
    Class::Denied {
        action: match action {
            "" => format!("ec2:{}", call.action()),
            action => action.to_owned(),
        },
        why: why.map(|why| why.trim_end_matches('.').to_owned()),
    }
}

/// The call, EC2's code and its message. Without the encoded message, which is long and of no use to readers: the log has
/// it.
fn said(error: &CallError) -> String {
    const ENCODED: &str = "Encoded authorization failure message";
    let text = error.to_string();
    let text = text.split(ENCODED).next().unwrap_or(&text);
    text.trim_end_matches([' ', '.', ':']).to_owned()
}

const fn wants_prefixes(call: &Call) -> bool {
    matches!(
        call,
        Call::CreateNetworkInterface {
            amount: Amount::Prefixes(_),
            ..
        } | Call::AssignPrivateIpAddresses {
            amount: Amount::Prefixes(_),
            ..
        }
    )
}

#[cfg(test)]
mod tests {
    use planner::{EniId, SubnetId};

    use super::*;

    fn assign() -> Call {
        Call::AssignPrivateIpAddresses {
            eni: EniId::from("eni-1"),
            amount: Amount::Addresses(5),
        }
    }

    fn describe() -> Call {
        Call::DescribeNetworkInterfaces { filters: vec![] }
    }

    fn create() -> Call {
        Call::CreateNetworkInterface {
            token: "t".into(),
            subnet: SubnetId::from("subnet-1"),
            groups: vec![],
            description: String::new(),
            tags: [].into(),
            amount: Amount::Addresses(1),
        }
    }

    fn class(call: &Call, code: &str, message: &str) -> Class {
        let error = CallError {
            action: call.action(),
            code: Some(code.into()),
            message: message.into(),
            refused: true,
        };
        classify(call, &error, "eu-west-1").class
    }

    #[test]
    fn every_code_has_its_meaning() {
        let exhausted = Class::Exhausted;
        let table: &[(Call, &str, &str, Class)] = &[
            (
                create(),
                "RequestLimitExceeded",
                "",
                Class::Throttled { retry_after: None },
            ),
            (
                create(),
                "InsufficientFreeAddressesInSubnet",
                "",
                exhausted.clone(),
            ),
            (create(), "InsufficientCidrBlocks", "", Class::Fragmented),
            (
                create(),
                "InvalidParameterValue",
                "There aren't sufficient free Ipv4 addresses or prefixes",
                exhausted,
            ),
            (assign(), "PrivateIpAddressLimitExceeded", "", Class::Limit),
            (
                assign(),
                "InvalidNetworkInterfaceID.NotFound",
                "",
                Class::NotFound,
            ),
            (
                assign(),
                "Client.UnauthorizedOperation",
                "",
                Class::Denied {
                    action: "ec2:AssignPrivateIpAddresses".into(),
                    why: None,
                },
            ),
            (assign(), "InternalError", "", Class::Ambiguous),
            (create(), "InternalError", "", Class::Ambiguous),
            (describe(), "InternalError", "", Class::Transient),
            (
                Call::DeleteNetworkInterface {
                    eni: EniId::from("eni-1"),
                },
                "InvalidParameterValue",
                "Network interface 'eni-1' is currently in use.",
                Class::InUse,
            ),
        ];
        for (call, code, message, want) in table {
            assert_eq!(
                class(call, code, message),
                *want,
                "{} {code} {message}",
                call.action()
            );
        }
    }

    /// The AWS VPC CNI does not recognise this one (its issue 3105).
    #[test]
    fn a_subnet_too_small_for_a_prefix_has_single_addresses() {
        let prefixes = Call::AssignPrivateIpAddresses {
            eni: EniId::from("eni-1"),
            amount: Amount::Prefixes(1),
        };
        let text = "There aren't sufficient free Ipv4 addresses or prefixes";
        assert!(matches!(
            class(&prefixes, "InvalidParameterValue", text),
            Class::Fragmented
        ));
        assert!(matches!(
            class(&assign(), "InvalidParameterValue", text),
            Class::Exhausted
        ));
    }

    #[test]
    fn an_address_that_somebody_moved_away_is_not_found() {
        let unassign = Call::UnassignPrivateIpAddresses {
            eni: EniId::from("eni-1"),
            addresses: vec![],
            prefixes: vec![],
        };
        let text = "Some of the specified addresses are not assigned to interface eni-1";
        assert_eq!(
            class(&unassign, "InvalidParameterValue", text),
            Class::NotFound
        );
    }

    #[test]
    fn a_lost_reply_is_ambiguous_unless_nothing_was_changed() {
        let lost = |call: &Call, refused| {
            let error = CallError {
                action: call.action(),
                code: None,
                message: "timed out".into(),
                refused,
            };
            classify(call, &error, "eu-west-1").class
        };
        assert_eq!(lost(&assign(), false), Class::Ambiguous);
        assert_eq!(
            lost(&create(), false),
            Class::Ambiguous,
            "its ClientToken must be used again"
        );
        assert_eq!(lost(&assign(), true), Class::Transient, "it was never sent");
        assert_eq!(lost(&describe(), false), Class::Transient);
    }
}
