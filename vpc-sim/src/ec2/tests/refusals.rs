//! How calls are refused, and how they fail with injected faults.

use super::*;

#[test]
fn unknown_actions_versions_and_parameters_are_errors() {
    let c = client();
    assert_eq!(
        c.refused("RunInstances", &[]),
        (400, "InvalidAction".into())
    );
    for action in Action::ALL {
        let refused = c.ask(
            action.name(),
            &[
                ("Colour", "red"),
                ("SubnetId", "s"),
                ("NetworkInterfaceId", "e"),
            ],
        );
        assert_eq!(refused.status, 400, "{action}: {}", refused.body);
    }
    let colour = [
        ("NetworkInterfaceId", c.primary.as_str()),
        ("Colour", "red"),
    ];
    assert_eq!(
        c.refused("DeleteNetworkInterface", &colour),
        (400, "UnknownParameter".into())
    );
    assert!(
        c.ask("DeleteNetworkInterface", &colour)
            .body
            .contains("The parameter Colour is not recognized")
    );
    let old = http(
        &c.api.ec2_endpoint(),
        "POST",
        "/",
        &[FORM],
        "Action=DescribeVpcs&Version=2014-01-01",
    );
    assert_eq!(inner(&old.body, "Code"), "NoSuchVersion");
    let json = http(
        &c.api.ec2_endpoint(),
        "POST",
        "/",
        &[("Content-Type", "application/json")],
        "{}",
    );
    assert_eq!(
        (json.status, inner(&json.body, "Code")),
        (400, "MalformedQueryString".into())
    );
}

/// Seen in EC2's answers to the AWS command line and to Terraform.
#[test]
fn texts_that_ec2_was_seen_to_give() {
    let c = client();
    let detach = c.ask(
        "DetachNetworkInterface",
        &[("AttachmentId", "eni-attach-1")],
    );
    assert_eq!(
        inner(&detach.body, "Message"),
        "The interface attachment 'eni-attach-1' does not exist."
    );
    let strange = [
        ("SubnetId", c.subnet.as_str()),
        ("SecurityGroupId.1", "sg-1"),
    ];
    let create = c.ask("CreateNetworkInterface", &strange);
    assert_eq!(
        inner(&create.body, "Message"),
        "The securityGroup ID 'sg-1' does not exist"
    );
    let tags = [
        ("SubnetId", c.subnet.as_str()),
        ("TagSpecification.1.ResourceType", "subnet"),
        ("TagSpecification.1.Tag.1.Key", "k"),
    ];
    let create = c.ask("CreateNetworkInterface", &tags);
    assert_eq!(inner(&create.body, "Code"), "InvalidParameterValue");
    assert_eq!(
        inner(&create.body, "Message"),
        "'subnet' is not a valid taggable resource type for this operation."
    );
}

#[test]
fn forms_of_addresses_exclude_each_other() {
    let c = client();
    let id = ("NetworkInterfaceId", c.primary.as_str());
    let both = [
        id,
        ("SecondaryPrivateIpAddressCount", "1"),
        ("Ipv4PrefixCount", "1"),
    ];
    assert_eq!(
        c.refused("AssignPrivateIpAddresses", &both).1,
        "InvalidParameterCombination"
    );
    assert_eq!(
        c.refused("AssignPrivateIpAddresses", &[id]).1,
        "MissingParameter"
    );
    let two = [
        id,
        ("SourceDestCheck.Value", "false"),
        ("Description.Value", "d"),
    ];
    assert_eq!(
        c.refused("ModifyNetworkInterfaceAttribute", &two).1,
        "InvalidParameterCombination"
    );
    let ids = [
        ("NetworkInterfaceId.1", c.primary.as_str()),
        ("MaxResults", "5"),
    ];
    assert_eq!(
        c.refused("DescribeNetworkInterfaces", &ids).1,
        "InvalidParameterCombination"
    );
    assert_eq!(
        c.refused(
            "AttachNetworkInterface",
            &[id, ("InstanceId", "i"), ("DeviceIndex", "x")]
        )
        .1,
        "InvalidParameterValue"
    );
}

#[test]
fn a_dry_run_changes_nothing_and_assign_has_none() {
    let c = client();
    let dry = [("SubnetId", c.subnet.as_str()), ("DryRun", "true")];
    assert_eq!(
        c.refused("CreateNetworkInterface", &dry),
        (412, "DryRunOperation".into())
    );
    assert_eq!(c.api.world().interfaces().count(), 1);
    let assign = [
        ("NetworkInterfaceId", c.primary.as_str()),
        ("Ipv4PrefixCount", "1"),
        ("DryRun", "true"),
    ];
    assert_eq!(
        c.refused("AssignPrivateIpAddresses", &assign).1,
        "UnknownParameter"
    );
}

#[test]
fn throttled_calls_are_503() {
    let c = client();
    c.api.world().set_throttling(true);
    for _ in 0..200 {
        let answer = c.ask("DescribeInstances", &[]);
        if answer.status != 200 {
            assert_eq!(
                (answer.status, inner(&answer.body, "Code")),
                (503, "RequestLimitExceeded".into())
            );
            return;
        }
    }
    panic!("200 calls in a row were not throttled");
}

#[test]
fn scripted_errors_happen_and_are_logged() {
    let c = client();
    c.api.faults().push(Fault::error(
        Action::DescribeVpcs,
        1,
        "UnauthorizedOperation",
    ));
    assert_eq!(
        c.refused("DescribeVpcs", &[]),
        (403, "UnauthorizedOperation".into())
    );
    c.ok("DescribeVpcs", &[("MaxResults", "7")]);
    let calls = c.api.calls();
    let outcomes: Vec<_> = calls
        .iter()
        .map(|c| (c.action.as_str(), c.outcome.clone()))
        .collect();
    let refused = Outcome::Refused("UnauthorizedOperation".into());
    assert_eq!(
        outcomes,
        [
            ("DescribeVpcs", refused),
            ("DescribeVpcs", Outcome::Answered)
        ]
    );
    assert_eq!(calls[1].param("MaxResults"), Some("7"));
    c.api.clear_calls();
    assert!(c.api.calls().is_empty());
}

#[test]
fn a_lost_reply_is_a_closed_connection_after_the_deed() {
    let c = client();
    c.api.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::LoseReply,
    });
    let body = form(
        "CreateNetworkInterface",
        &[("SubnetId", &c.subnet), ("ClientToken", "t")],
    );
    assert_eq!(raw(&c.api.ec2_endpoint(), "POST", "/", &[FORM], &body), "");
    assert_eq!(c.api.world().interfaces().count(), 2);
    assert_eq!(c.api.calls()[0].outcome, Outcome::ReplyLost);
    c.create(&[("ClientToken", "t")]);
    assert_eq!(c.api.world().interfaces().count(), 2, "the same interface");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "measures a delay in real time")]
fn a_delayed_call_takes_that_long() {
    let c = client();
    let wait = Duration::from_millis(80);
    c.api.faults().push(Fault {
        action: Action::DescribeVpcs,
        times: 1,
        kind: FaultKind::Delay(wait),
    });
    let begun = Instant::now();
    c.ok("DescribeVpcs", &[]);
    assert!(begun.elapsed() >= wait);
}

#[test]
fn a_hanging_call_is_not_done_and_blocks_no_other_call() {
    use std::io::Write as _;
    let c = client();
    c.api.faults().push(Fault {
        action: Action::DeleteNetworkInterface,
        times: 1,
        kind: FaultKind::Hang,
    });
    let eni = inner(&c.create(&[]), "networkInterfaceId");
    let body = form("DeleteNetworkInterface", &[("NetworkInterfaceId", &eni)]);
    let mut stream =
        std::net::TcpStream::connect(c.api.ec2_endpoint().trim_start_matches("http://")).unwrap();
    let (kind, length) = (FORM.1, body.len());
    write!(stream, "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    // The call is logged when it starts to hang; until then, other calls are answered in between.
    while !c
        .api
        .calls()
        .iter()
        .any(|call| call.outcome == Outcome::Hung)
    {
        c.ok("DescribeVpcs", &[]);
    }
    assert_eq!(c.api.world().interfaces().count(), 2);
    stream.set_nonblocking(true).unwrap();
    let nothing = std::io::Read::read(&mut stream, &mut [0; 1]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}
