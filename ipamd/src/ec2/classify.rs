//! The table from EC2's error codes to their meaning for the pool.
//!
//! Sources: EC2 API "Error codes" page, and the codes that were observed for each action. Any other code is
//! [`Class::Transient`] if EC2 refused the call, otherwise [`Class::Ambiguous`].

use planner::{Amount, Class, Failure};

use crate::ec2::api::{Call, CallError};

/// Converts a failed `call` for the planner.
#[must_use]
pub fn classify(call: &Call, error: &CallError) -> Failure {
    let class = match error.code.as_deref() {
        None if error.refused || call.reads() => Class::Transient,
        None => Class::Ambiguous,
        Some(code) => by_code(call, code, &error.message),
    };
    Failure {
        class,
        message: error.to_string(),
    }
}

fn by_code(call: &Call, code: &str, message: &str) -> Class {
    // CloudTrail and some SDK layers add this prefix.
    match code.strip_prefix("Client.").unwrap_or(code) {
        "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "EC2ThrottledException" => {
            Class::Throttled { retry_after: None }
        }
        "InsufficientFreeAddressesInSubnet" => Class::Exhausted,
        "InsufficientCidrBlocks" => Class::Fragmented,
        // A subnet that is smaller than the request returns this instead of the codes above. A subnet that is too small
        // for a prefix may have free addresses.
        "InvalidParameterValue" if message.contains("sufficient free") => {
            if wants_prefixes(call) {
                Class::Fragmented
            } else {
                Class::Exhausted
            }
        }
        "InvalidParameterValue" if message.contains("in use") => Class::InUse,
        // The error of an Unassign for addresses that were moved away. A retry would always fail.
        "InvalidParameterValue" if message.contains("are not assigned") => Class::NotFound,
        "InvalidParameterValue" if message.contains("already has an interface attached") => {
            Class::InUse
        }
        "InvalidNetworkInterface.InUse" | "IncorrectState" => Class::InUse,
        "PrivateIpAddressLimitExceeded"
        | "AttachmentLimitExceeded"
        | "NetworkInterfaceLimitExceeded" => Class::Limit,
        "UnauthorizedOperation" | "AccessDenied" | "AuthFailure" => Class::Denied {
            action: format!("ec2:{}", call.action()),
        },
        code if code.ends_with(".NotFound") => Class::NotFound,
        "InternalError" | "InternalFailure" | "Unavailable" | "ServiceUnavailable"
            if !call.reads() =>
        {
            Class::Ambiguous
        }
        _ => Class::Transient,
    }
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
        classify(call, &error).class
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
            classify(call, &error).class
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
