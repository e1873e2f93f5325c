//! Each way in which EC2 can delay a pod, and the text in the pod's event.

use std::{io, thread, time::Duration};

use lab::{
    Lab,
    node::{Node, count, plugin},
    wait::eventually,
};
use proto::refusal::Reason;
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::{
    suite::{Outcome, trials},
    support::refusals::{add_within, expect_refusal, full_node},
};

trials!(
    an_exhausted_subnet_is_named,
    a_denied_action_is_named,
    throttling_is_named,
    an_unreachable_ec2_is_named,
    case_19_a_quota_is_named_with_its_region_and_where_to_raise_it,
    case_19_refusals_of_the_account_have_ec2s_code_once_and_a_fitting_remedy,
    a_waiting_add_is_served_by_the_first_address,
    a_lost_create_reply_makes_no_second_eni,
    del_cancels_a_waiting_add,
    slots_in_use_according_to_ec2_are_named,
    an_expired_wait_lists_the_operations_in_progress,
    a_pool_that_must_not_grow_is_named,
);

fn refused_after(action: Action, code: &str, reason: Reason, words: &[&str]) -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    lab.sim.faults().push(Fault::error(action, 1000, code));
    expect_refusal(&node, &add_within(&node, 3)?, reason, words)?;
    assert_eq!(count(&node, "assigned")?, 3);
    Ok(())
}

/// The fault for the next requested ENI.
fn next_create(lab: &Lab, kind: FaultKind) {
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind,
    });
}

/// An ADD that waits for an address and gets one.
fn add(node: &Node) -> io::Result<plugin::Outcome> {
    let (_netns, path) = node.sandbox("waits")?;
    let added = node
        .invocation("ADD", "waits", Some(&path))
        .run(node.netns())?;
    assert!(added.succeeded(), "{added:?}\n{}", node.log());
    Ok(added)
}

fn an_exhausted_subnet_is_named() -> Outcome {
    refused_after(
        Action::CreateNetworkInterface,
        "InsufficientFreeAddressesInSubnet",
        Reason::SubnetExhausted,
        &["subnet-", "no free address", "the daemon tries again in"],
    )
}

fn a_denied_action_is_named() -> Outcome {
    refused_after(
        Action::CreateNetworkInterface,
        "UnauthorizedOperation",
        Reason::Ec2Denied,
        &["IAM denies ec2:CreateNetworkInterface", "IAM policy"],
    )
}

fn throttling_is_named() -> Outcome {
    refused_after(
        Action::CreateNetworkInterface,
        "RequestLimitExceeded",
        Reason::Ec2Throttled,
        &["EC2 throttles this account", "the daemon tries again in"],
    )
}

fn an_unreachable_ec2_is_named() -> Outcome {
    refused_after(
        Action::CreateNetworkInterface,
        "InternalError",
        Reason::Ec2Unreachable,
        &[
            "EC2 is not available",
            "InternalError",
            "AWS Health Dashboard",
        ],
    )
}

/// Case 19 of the public reports.
fn case_19_a_quota_is_named_with_its_region_and_where_to_raise_it() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    let quota = "NetworkInterfaceLimitExceeded";
    let fault = Fault::error(Action::CreateNetworkInterface, u32::MAX, quota);
    lab.sim.faults().push(fault);
    let region = lab.sim.world().region().to_owned();
    let words = [
        "EC2 refuses CreateNetworkInterface: NetworkInterfaceLimitExceeded",
        "Network interfaces per Region",
        "Service Quotas",
        &region,
    ];
    let refused = add_within(&node, 3)?;
    expect_refusal(&node, &refused, Reason::Ec2Refused, &words)?;
    let text = refused.error_text();
    assert_eq!(text.matches(quota).count(), 1, "{text}");
    assert!(!text.contains("MAX_ENI") && !text.contains("DNS"), "{text}");
    // The quota is raised: the next pod does not wait for the rest of a pause, which would be longer than its deadline.
    lab.sim.faults().clear();
    node.add_pod("served")?;
    Ok(())
}

fn case_19_refusals_of_the_account_have_ec2s_code_once_and_a_fitting_remedy() -> Outcome {
    for (code, remedy) in [
        ("OptInRequired", "subscribe the account to EC2"),
        ("Blocked", "AWS Support"),
        ("PendingVerification", "wait for AWS to verify the account"),
        (
            "InvalidGroup.NotFound",
            "give the primary ENI security groups",
        ),
        ("TagPolicyViolation", "ADDITIONAL_ENI_TAGS"),
        (
            "SecurityGroupsPerInterfaceLimitExceeded",
            "fewer security groups",
        ),
        ("AuthFailure", "credentials"),
    ] {
        let lab = Lab::start(SimConfig::default())?;
        let node = full_node(&lab)?;
        let fault = Fault::error(Action::CreateNetworkInterface, u32::MAX, code);
        lab.sim.faults().push(fault);
        let refused = add_within(&node, 3)?;
        let words = ["EC2 refuses CreateNetworkInterface", code, remedy];
        expect_refusal(&node, &refused, Reason::Ec2Refused, &words)?;
        let text = refused.error_text();
        assert_eq!(text.matches(code).count(), 1, "{text}");
        assert!(!text.contains("DNS"), "{text}");
    }
    Ok(())
}

fn slots_in_use_according_to_ec2_are_named() -> Outcome {
    refused_after(
        Action::AttachNetworkInterface,
        "AttachmentLimitExceeded",
        Reason::EniLimit,
        &["t3.small supports 3 ENIs", "and EC2 refused one more"],
    )
}

fn an_expired_wait_lists_the_operations_in_progress() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    next_create(&lab, FaultKind::Hang);
    let words = [
        "no free address after",
        "ENIs being created: 1",
        "WARM_IP_TARGET",
    ];
    expect_refusal(&node, &add_within(&node, 3)?, Reason::PoolEmpty, &words)
}

fn a_pool_that_must_not_grow_is_named() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("DISABLE_NETWORK_RESOURCE_PROVISIONING", "true")];
    let node = lab.node("t3.small", &settings)?;
    let words = [
        "the pool must not grow",
        "DISABLE_NETWORK_RESOURCE_PROVISIONING is set",
        "when another pod is deleted",
    ];
    expect_refusal(&node, &add_within(&node, 3)?, Reason::PoolEmpty, &words)
}

fn a_waiting_add_is_served_by_the_first_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    next_create(&lab, FaultKind::Delay(Duration::from_secs(1)));
    let added = add(&node)?;
    assert!(
        added.took >= Duration::from_secs(1),
        "it cannot have been served before EC2 answered"
    );
    Ok(())
}

fn a_lost_create_reply_makes_no_second_eni() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    next_create(&lab, FaultKind::LoseReply);
    add(&node)?;
    let owned = lab.sim.world().interfaces().count();
    assert_eq!(owned, 2, "the primary ENI and one more\n{}", node.log());
    Ok(())
}

fn del_cancels_a_waiting_add() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = full_node(&lab)?;
    next_create(&lab, FaultKind::Hang);
    let (_netns, path) = node.sandbox("waits")?;
    thread::scope(|scope| {
        let add = scope.spawn(|| {
            node.invocation("ADD", "waits", Some(&path))
                .run(node.netns())
        });
        assert!(
            eventually(Duration::from_secs(5), || node
                .waiting()
                .is_ok_and(|n| n == 1)),
            "{}",
            node.log()
        );
        let deleted = node
            .invocation("DEL", "waits", Some(&path))
            .run(node.netns())?;
        assert!(
            deleted.succeeded() && deleted.took < Duration::from_secs(2),
            "{deleted:?}"
        );
        let refused = add.join().expect("no panic")?;
        let words = ["sandbox waits was deleted", "creates a new sandbox"];
        expect_refusal(&node, &refused, Reason::SandboxDeleted, &words)
    })
}
