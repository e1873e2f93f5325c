//! Pods and daemons that start, end, fail half-way and start again.

use std::time::Duration;

use datapath::netlink::{self, Socket};
use lab::{
    Lab,
    node::{Node, count, occupy},
    traffic::ping::ping,
    wait::eventually,
};
use proto::refusal::Reason;
use vpc_sim::{Action, Fault, FaultKind, SimConfig, imds::ImdsFault};

use crate::{
    suite::{Outcome, trials},
    support::refusals::expect_refusal,
};

trials!(
    after_del_nothing_is_left,
    a_failed_add_leaves_nothing,
    the_daemon_holds_no_capability_but_net_admin,
    a_restarted_daemon_knows_its_pods,
    a_killed_daemon_loses_no_pod_and_no_address,
    a_restarted_daemon_serves_while_ec2_and_metadata_are_away,
    a_del_that_meets_no_daemon_is_honoured_at_its_start,
    pods_outlive_a_corrupt_state_file,
    a_pod_that_ended_without_del_is_released,
    an_add_after_its_del_is_refused,
    wrong_settings_are_all_named_at_once,
    log_lines_are_json,
    a_second_daemon_is_refused,
    metrics_are_served,
);

/// Links, routes of every table and neighbours of the node: they must be the same before ADD and after DEL.
fn kernel_state(node: &Node) -> std::io::Result<Vec<String>> {
    node.netns()
        .run(|| -> Result<Vec<String>, netlink::Error> {
            let mut socket = Socket::open()?;
            let mut lines: Vec<String> = socket
                .links()?
                .into_iter()
                .map(|link| format!("link {}", link.name))
                .collect();
            lines.extend(
                socket
                    .routes(netlink::Family::V4, None)?
                    .into_iter()
                    .map(|route| format!("route {route:?}")),
            );
            lines.sort();
            Ok(lines)
        })?
        .map_err(std::io::Error::other)
}

fn settled(node: &Node, free: usize) -> bool {
    eventually(Duration::from_secs(20), || {
        count(node, "free").is_ok_and(|n| n == free)
    })
}

fn after_del_nothing_is_left() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node(
        "t3.small",
        &[("WARM_IP_TARGET", "3"), ("IP_COOLDOWN_PERIOD", "0")],
    )?;
    assert!(settled(&node, 3), "{}", node.log());
    let before = kernel_state(&node)?;
    let pods: Vec<_> = (0..3)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    assert_ne!(before, kernel_state(&node)?);
    let addresses: Vec<_> = pods.iter().map(lab::node::Pod::address).collect();
    for pod in pods {
        node.delete_pod(pod)?;
    }
    for address in addresses {
        assert!(
            ping(node.netns(), None, address, Duration::from_millis(200))?.is_none(),
            "{address} still answers"
        );
    }
    assert!(eventually(Duration::from_secs(20), || count(
        &node, "assigned"
    )
    .is_ok_and(|n| n == 0)));
    // WARM_IP_TARGET may have added an ENI; pod links and their routes must be gone.
    let left: Vec<_> = kernel_state(&node)?
        .into_iter()
        .filter(|line| line.contains("link eni"))
        .collect();
    assert_eq!(left, Vec::<String>::new());
    Ok(())
}

fn a_failed_add_leaves_nothing() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "3")])?;
    assert!(settled(&node, 3), "{}", node.log());
    let before = kernel_state(&node)?;
    let (netns, path) = node.sandbox("taken")?;
    // The interface already exists: CNI conformance, row 16.
    netns.run(|| occupy("eth0"))??;
    let refused = node
        .invocation("ADD", "taken", Some(&path))
        .run(node.netns())?;
    assert!(
        !refused.succeeded() && refused.error_text().contains("eth0"),
        "{refused:?}"
    );
    assert_eq!(kernel_state(&node)?, before);
    assert_eq!((count(&node, "free")?, count(&node, "reserved")?), (3, 0));
    Ok(())
}

fn the_daemon_holds_no_capability_but_net_admin() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", node.pid()))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .unwrap_or_default()
        .trim();
    assert_eq!(
        u64::from_str_radix(effective, 16)?,
        1 << 12,
        "CAP_NET_ADMIN is capability 12"
    );
    // It also did all other work, including growth.
    for n in 0..5 {
        node.add_pod(&format!("pod{n}"))?;
    }
    Ok(())
}

fn a_restarted_daemon_knows_its_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    let pods: Vec<_> = (0..4)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    assert!(
        node.stop_daemon()?,
        "SIGTERM must end it cleanly\n{}",
        node.log()
    );
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    // Addresses on a secondary ENI count after the daemon has checked its link again.
    assert!(
        eventually(Duration::from_secs(5), || count(&node, "assigned")
            .is_ok_and(|n| n == 4)),
        "{}",
        node.log()
    );
    let again = node
        .invocation("ADD", "pod0", Some(&pods[0].path))
        .run(node.netns())?;
    assert_eq!(
        again.address(),
        pods[0].address(),
        "a repeated ADD answers what the first one did"
    );
    let fresh = node.add_pod("fresh")?;
    assert!(
        pods.iter().all(|pod| pod.address() != fresh.address()),
        "an address in use was granted again"
    );
    Ok(())
}

fn a_killed_daemon_loses_no_pod_and_no_address() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, other) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let pods: Vec<_> = (0..4)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let target = other.add_pod("target")?;
    node.kill_daemon()?;
    for pod in &pods {
        assert!(
            ping(&pod.netns, None, target.address(), Duration::from_secs(2))?.is_some(),
            "traffic needs no daemon"
        );
    }
    // A pod whose namespace ends while the daemon is not running is detected at its start.
    let mut pods = pods;
    let gone = pods.remove(0);
    node.end_pod(gone)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert!(
        eventually(Duration::from_secs(5), || count(&node, "assigned")
            .is_ok_and(|n| n == 3)),
        "{}",
        node.log()
    );
    for pod in &pods {
        assert!(ping(&pod.netns, None, target.address(), Duration::from_secs(2))?.is_some());
    }
    Ok(())
}

fn a_restarted_daemon_serves_while_ec2_and_metadata_are_away() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[("WARM_IP_TARGET", "3")])?;
    let first = node.add_pod("first")?;
    assert!(
        eventually(Duration::from_secs(20), || count(&node, "free")
            .is_ok_and(|n| n >= 3)),
        "{}",
        node.log()
    );
    node.kill_daemon()?;
    let away = FaultKind::Error {
        code: "InternalError".to_owned(),
    };
    lab.sim.faults().push(Fault {
        action: Action::DescribeNetworkInterfaces,
        times: 1000,
        kind: away,
    });
    lab.sim.imds().push(ImdsFault {
        path: "/latest/".to_owned(),
        times: 1000,
        delay: Duration::ZERO,
        status: Some(503),
    });
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let fresh = node.add_pod("fresh")?;
    assert_ne!(fresh.address(), first.address());
    node.delete_pod(first)?;
    assert!(ping(node.netns(), None, fresh.address(), Duration::from_secs(2))?.is_some());
    lab.sim.faults().clear();
    Ok(())
}

fn a_del_that_meets_no_daemon_is_honoured_at_its_start() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    let (gone, kept) = (node.add_pod("gone")?, node.add_pod("kept")?);
    node.kill_daemon()?;
    let del = node
        .invocation("DEL", "gone", Some(&gone.path))
        .conf("deadlineSeconds", serde_json::json!(1));
    let deleted = del.run(node.netns())?;
    assert!(deleted.succeeded(), "{deleted:?}");
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let released = eventually(Duration::from_secs(5), || {
        count(&node, "assigned").is_ok_and(|n| n == 1)
    });
    assert!(released, "{}", node.log());
    assert!(
        ping(
            node.netns(),
            None,
            gone.address(),
            Duration::from_millis(300)
        )?
        .is_none()
    );
    assert!(ping(node.netns(), None, kept.address(), Duration::from_secs(2))?.is_some());
    Ok(())
}

fn pods_outlive_a_corrupt_state_file() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (mut node, other) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let target = other.add_pod("target")?;
    let pods: Vec<_> = (0..5)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    node.kill_daemon()?;
    std::fs::write(node.state_file(), "rubbish")?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let known = eventually(Duration::from_secs(10), || {
        count(&node, "assigned").is_ok_and(|n| n == 5)
    });
    assert!(known, "{}", node.log());
    for pod in &pods {
        assert!(
            ping(&pod.netns, None, target.address(), Duration::from_secs(2))?.is_some(),
            "{}",
            node.log()
        );
    }
    let fresh = node.add_pod("fresh")?;
    assert!(
        pods.iter().all(|pod| pod.address() != fresh.address()),
        "an address in use was granted again"
    );
    // Its record is lost, but its DEL finds it.
    for pod in pods {
        let address = pod.address();
        node.delete_pod(pod)?;
        assert!(ping(node.netns(), None, address, Duration::from_millis(200))?.is_none());
    }
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}

fn a_pod_that_ended_without_del_is_released() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let (gone, kept) = (node.add_pod("gone")?, node.add_pod("kept")?);
    datapath::netns::Netns::unbind(&gone.path)?;
    drop(gone);
    let released = eventually(Duration::from_secs(60), || {
        count(&node, "assigned").is_ok_and(|n| n == 1)
    });
    assert!(released, "{}", node.log());
    assert!(ping(node.netns(), None, kept.address(), Duration::from_secs(2))?.is_some());
    Ok(())
}

fn an_add_after_its_del_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    assert!(
        node.invocation("DEL", "late", None)
            .run(node.netns())?
            .succeeded()
    );
    let (_netns, path) = node.sandbox("late")?;
    let refused = node
        .invocation("ADD", "late", Some(&path))
        .run(node.netns())?;
    let words = ["sandbox late was deleted before its ADD was complete"];
    expect_refusal(&node, &refused, Reason::SandboxDeleted, &words)?;
    // A sandbox that was wired and deleted may be added again: some runtimes renew a network this way.
    let pod = node.add_pod("renewed")?;
    assert!(
        node.invocation("DEL", "renewed", Some(&pod.path))
            .run(node.netns())?
            .succeeded()
    );
    let again = node
        .invocation("ADD", "renewed", Some(&pod.path))
        .run(node.netns())?;
    assert!(again.succeeded(), "{again:?}");
    Ok(())
}

fn wrong_settings_are_all_named_at_once() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node(
        "t3.small",
        &[("WARM_IP_TARGET", "many"), ("AWS_VPC_ENI_MTU", "1")],
    )?;
    let refused = node.run_daemon(&lab.sim.ec2_endpoint())?;
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(64), "{said}");
    assert!(
        said.contains("WARM_IP_TARGET=many") && said.contains("AWS_VPC_ENI_MTU=1"),
        "{said}"
    );
    Ok(())
}

fn log_lines_are_json() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    node.add_pod("pod0")?;
    node.stop_daemon()?;
    for line in node.log().lines() {
        let event: serde_json::Value =
            serde_json::from_str(line).map_err(|e| format!("{e}: {line}"))?;
        assert!(
            event["level"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
    Ok(())
}

fn a_second_daemon_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    let first = node.pid();
    let refused = node.run_daemon(&lab.sim.ec2_endpoint())?;
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("another ipamd holds the lock"), "{said}");
    assert_eq!(node.pid(), first);
    node.add_pod("pod0")?;
    Ok(())
}

fn metrics_are_served() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    node.add_pod("pod0")?;
    let text = node.metrics()?;
    for line in [
        "awscni_assigned_ip_addresses 1",
        "awscni_add_ip_req_count 1",
        "hawser_requests_total{result=\"ok\",verb=\"add\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing from:\n{text}");
    }
    Ok(())
}
