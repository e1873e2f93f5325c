//! Faults of EC2 and of the metadata service that only a whole node shows (numbers: `docs/faults.md`).

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod, inspect::inspect},
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::json;
use vpc_sim::{
    Action, Fault, FaultKind, SimConfig, ids::EniId, imds::ImdsFault,
    world::request::DetachNetworkInterface,
};

use crate::suite::{Outcome, trials};

trials!(
    fault_18_an_eni_deleted_at_the_console_gets_no_pod_and_its_pods_can_be_deleted,
    fault_19_an_address_moved_away_is_not_granted,
    fault_22_an_eni_that_metadata_omits_keeps_its_pods,
    fault_24_metadata_that_fails_at_first_is_asked_again,
    fault_24_a_metadata_service_that_never_answers_is_named_with_what_helps,
    fault_24_growth_needs_no_metadata,
    fault_50_a_deleted_subnet_or_group_stops_only_growth,
    a_node_in_a_subnet_without_free_addresses_is_ready,
);

const LIMIT: Duration = Duration::from_secs(60);

/// Three addresses on the primary ENI and three on each of two more.
fn node(lab: &Lab) -> std::io::Result<Node> {
    lab.node(
        "t3.small",
        &[("WARM_ENI_TARGET", "0"), ("IP_COOLDOWN_PERIOD", "1")],
    )
}

fn add(node: &Node, names: std::ops::Range<usize>) -> std::io::Result<Vec<Pod>> {
    names.map(|n| node.add_pod(&format!("pod{n}"))).collect()
}

/// The seconds in an error text "… had no free address for N s; …".
fn seconds_without_address(text: &str) -> Option<u64> {
    let (_, rest) = text.split_once("had no free address for ")?;
    rest.split_once(" s")?.0.parse().ok()
}

/// Case 43 of the public reports: a /28 has room for the node and ten pods.
fn a_node_in_a_subnet_without_free_addresses_is_ready() -> Outcome {
    let mut config = SimConfig::default();
    config.subnets[0].cidr = "10.0.0.0/28".parse()?;
    let lab = Lab::start(config)?;
    let node = node(&lab)?;
    let status = || {
        node.invocation("STATUS", "", None)
            .conf("cniVersion", json!("1.1.0"))
            .run(node.netns())
    };
    let deadline = json!(3);
    let add = |name: &str| {
        let (_netns, path) = node.sandbox(name)?;
        node.invocation("ADD", name, Some(&path))
            .conf("deadlineSeconds", deadline.clone())
            .run(node.netns())
    };
    let mut pods = 0;
    let refused = loop {
        let outcome = add(&format!("pod{pods}"))?;
        if !outcome.succeeded() {
            break outcome.error_text();
        }
        pods += 1;
    };
    assert!((6..=8).contains(&pods), "{pods} pods: {refused}");
    assert!(refused.contains("SUBNET_EXHAUSTED"), "{refused}");
    let first = seconds_without_address(&refused).ok_or(refused)?;
    let ready = status()?;
    assert!(ready.succeeded(), "{ready:?}");
    std::thread::sleep(Duration::from_secs(2));
    let later = add("later")?.error_text();
    let later = seconds_without_address(&later).ok_or(later)?;
    assert!(later >= first + 2, "for {first} s, later for {later} s");
    Ok(())
}

/// The ENI with a pod's address.
fn home(lab: &Lab, pod: &Pod) -> EniId {
    let world = lab.sim.world();
    let owner = world.owner_of(pod.address());
    owner
        .map(|eni| eni.id.clone())
        .expect("EC2 gave the address")
}

/// The daemon's addresses in `state`.
fn in_state(node: &Node, state: &str) -> std::io::Result<BTreeSet<IpAddr>> {
    let snapshot = inspect(&node.socket())?;
    let addresses = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    let matching = addresses.filter(|address| address.state == state);
    Ok(matching
        .filter_map(|address| Some(IpAddr::from(<[u8; 4]>::try_from(address.address).ok()?)))
        .collect())
}

/// What an operator does in the console: detach by force, and delete.
fn delete_at_the_console(lab: &Lab, eni: &EniId) -> Outcome {
    let now = lab.sim.now();
    let mut world = lab.sim.world();
    let attachment = world.interface(eni).and_then(|eni| eni.attachment.clone());
    let attachment = attachment.ok_or("it is not attached")?.id;
    let detach = DetachNetworkInterface {
        attachment,
        force: true,
    };
    world
        .detach_network_interface(&detach, now)
        .map_err(|error| error.to_string())?;
    let gone = world.delete_network_interface(eni, now);
    drop(world);
    gone.map_err(|error| error.to_string())?;
    lab.sim.settle().map_err(|error| error.to_string())?;
    Ok(())
}

fn fault_18_an_eni_deleted_at_the_console_gets_no_pod_and_its_pods_can_be_deleted() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node(
        "t3.medium",
        &[("WARM_ENI_TARGET", "0"), ("IP_COOLDOWN_PERIOD", "1")],
    )?;
    let pods = add(&node, 0..7)?;
    let doomed = home(&lab, &pods[6]);
    assert_ne!(
        doomed,
        home(&lab, &pods[0]),
        "the seventh is on a second ENI"
    );
    delete_at_the_console(&lab, &doomed)?;
    // A start always reads EC2's list.
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let dead: BTreeSet<_> = pods[5..].iter().map(Pod::address).collect();
    // Immediately, and not only after EC2's list: the kernel has no link for it any more.
    for fresh in add(&node, 10..13)? {
        assert!(!dead.contains(&fresh.address()), "{}", node.log());
        assert_ne!(home(&lab, &fresh), doomed);
        let answers = ping(node.netns(), None, fresh.address(), Duration::from_secs(2))?;
        assert!(answers.is_some(), "{}", fresh.address());
    }
    for pod in pods {
        node.delete_pod(pod)?;
    }
    Ok(())
}

fn fault_19_an_address_moved_away_is_not_granted() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node(
        "t3.small",
        &[("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "1")],
    )?;
    let filled = || in_state(&node, "free").is_ok_and(|free| free.len() == 3);
    assert!(eventually(LIMIT, filled), "{}", node.log());
    let moved = *in_state(&node, "free")?.first().ok_or("none is free")?;
    let IpAddr::V4(taken) = moved else {
        return Err("not an IPv4 address".into());
    };
    lab.take_away(taken)?;
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let aside = || in_state(&node, "free").is_ok_and(|free| !free.contains(&moved));
    assert!(eventually(LIMIT, aside), "{}", node.log());
    for pod in add(&node, 0..6)? {
        assert_ne!(pod.address(), moved, "{}", node.log());
    }
    Ok(())
}

/// Metadata is never used for ENIs.
fn fault_22_an_eni_that_metadata_omits_keeps_its_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = node(&lab)?;
    let pods = add(&node, 0..5)?;
    let second = home(&lab, &pods[4]);
    let mac = lab.sim.world().interface(&second).map(|eni| eni.mac);
    let mac = mac.ok_or("it is there")?;
    node.kill_daemon()?;
    // Nothing is recorded either: only EC2 and the kernel are left.
    std::fs::remove_file(node.state_file())?;
    lab.sim.imds().push(ImdsFault {
        path: format!("/latest/meta-data/network/interfaces/macs/{mac}"),
        times: 1000,
        delay: Duration::ZERO,
        status: Some(404),
    });
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let known = || in_state(&node, "assigned").is_ok_and(|assigned| assigned.len() == 5);
    assert!(eventually(LIMIT, known), "{}", node.log());
    assert!(
        lab.sim
            .world()
            .interface(&second)
            .is_some_and(|eni| eni.attachment.is_some())
    );
    for pod in &pods {
        let answers = ping(node.netns(), None, pod.address(), Duration::from_secs(2))?;
        assert!(answers.is_some(), "{}", pod.address());
    }
    Ok(())
}

fn fault_24_metadata_that_fails_at_first_is_asked_again() -> Outcome {
    for status in [401, 429, 500, 503] {
        let lab = Lab::start(SimConfig::default())?;
        lab.sim.imds().push(ImdsFault {
            path: "/latest/".to_owned(),
            times: 2,
            delay: Duration::ZERO,
            status: Some(status),
        });
        let mut node = lab.bare_node("t3.small", &[])?;
        // Like its DaemonSet: a daemon that cannot read its identity logs this and exits.
        let mut started = node.start_daemon(&lab.sim.ec2_endpoint());
        for _ in 0..3 {
            let Err(error) = &started else { break };
            assert!(
                error.to_string().contains("instance metadata key"),
                "{error}"
            );
            started = node.start_daemon(&lab.sim.ec2_endpoint());
        }
        started?;
        node.add_pod("pod0")?;
    }
    Ok(())
}

/// The daemon's log is what an operator sees first, because a daemon without an identity writes to no Node.
fn fault_24_a_metadata_service_that_never_answers_is_named_with_what_helps() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    lab.sim.imds().push(ImdsFault {
        path: "/latest/".to_owned(),
        times: 1000,
        delay: Duration::from_secs(300),
        status: None,
    });
    let mut node = lab.bare_node("t3.small", &[])?;
    let started = node.start_daemon(&lab.sim.ec2_endpoint());
    let told = started.expect_err("it has no identity").to_string();
    for words in [
        "/latest/meta-data/mac",
        "is enabled",
        "its hop limit must be 2",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    Ok(())
}

fn fault_24_growth_needs_no_metadata() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = node(&lab)?;
    // The role's credentials are from there too; they are cached until they expire.
    let first = node.add_pod("first")?;
    lab.sim.imds().push(ImdsFault {
        path: "/latest/".to_owned(),
        times: 100_000,
        delay: Duration::from_secs(300),
        status: Some(500),
    });
    let pods = add(&node, 0..6)?;
    assert_ne!(home(&lab, &first), home(&lab, &pods[5]), "an ENI was added");
    Ok(())
}

fn fault_50_a_deleted_subnet_or_group_stops_only_growth() -> Outcome {
    for code in ["InvalidSubnetID.NotFound", "InvalidGroup.NotFound"] {
        let lab = Lab::start(SimConfig::default())?;
        let node = node(&lab)?;
        let fault = FaultKind::Error {
            code: code.to_owned(),
        };
        lab.sim.faults().push(Fault {
            action: Action::CreateNetworkInterface,
            times: 100_000,
            kind: fault,
        });
        let mut pods = add(&node, 0..3)?;
        lab.sim.clear_calls();
        let (_netns, path) = node.sandbox("waits")?;
        let refused = node
            .invocation("ADD", "waits", Some(&path))
            .conf("deadlineSeconds", json!(8))
            .run(node.netns())?;
        assert_eq!(refused.error_code(), Some(11), "{refused:?}");
        assert!(
            refused.error_text().contains(code),
            "{}",
            refused.error_text()
        );
        let calls = lab.sim.calls().len();
        assert!(calls <= 20, "{calls} calls in eight seconds");
        // Free addresses are still assigned.
        node.delete_pod(pods.remove(0))?;
        let fresh = node.add_pod("fresh")?;
        let answers = ping(node.netns(), None, fresh.address(), Duration::from_secs(2))?;
        assert!(answers.is_some(), "{}", node.log());
    }
    Ok(())
}
