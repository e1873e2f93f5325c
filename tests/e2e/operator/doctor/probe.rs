//! The doctor's probe: two pods of its own, and a connection between them through the node.

use std::time::Duration;

use lab::{node::Node, wait::eventually};
use vpc_sim::SimConfig;

use super::doctor_node::{DoctorNode, Report};
use crate::suite::{Outcome, trials};

trials!(
    a_packet_that_no_ruleset_explains_is_missed_by_the_probe_pods,
    a_probe_leaves_nothing_even_if_it_is_killed,
    without_the_right_to_make_namespaces_the_probe_says_so,
);

const LIMIT: Duration = Duration::from_secs(30);
/// Drops every forwarded packet, by a condition that only the packet itself decides.
const DROP: &str = "nft 'table inet agent { chain forward { type filter hook forward priority 10; meta length gt 20 drop; }; }'";

/// Links and routes of pods.
fn of_pods(node: &Node) -> String {
    let shown = node.shell(
        "ip -o link show group 27392; ip route show table 27392 2>/dev/null || true; ls /run/netns 2>/dev/null || true",
    );
    shown.unwrap_or_else(|error| error.to_string())
}

fn a_packet_that_no_ruleset_explains_is_missed_by_the_probe_pods() -> Outcome {
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let pod = examined.node.add_pod("a")?;
    let before = of_pods(&examined.node);
    examined.healthy()?;
    assert_eq!(of_pods(&examined.node), before);
    examined.node.shell(DROP)?;
    examined.finds(
        "probe",
        "the node drops packets that it forwards between pods",
    )?;
    let told = format!("{:?}", examined.told()?.findings());
    assert!(!told.contains("a filter drops packets"), "{told}");
    examined.node.shell("nft delete table inet agent")?;
    examined.healthy()?;
    examined.node.delete_pod(pod)?;
    Ok(())
}

fn a_probe_leaves_nothing_even_if_it_is_killed() -> Outcome {
    // The doctor is killed as soon as its pods have links; without an answer it would wait for seconds.
    const KILL: &str = "\"$@\" >/dev/null 2>&1 & p=$!; n=0; \
        while [ -z \"$(ip -o link show group 27392)\" ] && [ $n -lt 1000 ]; do sleep 0.01; n=$((n+1)); done; \
        ip -o link show group 27392; kill -9 $p; wait $p || true";
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    examined.node.shell(DROP)?;
    let before = of_pods(&examined.node);
    let endpoint = examined.lab.sim.ec2_endpoint();
    let killed = examined.doctor_under(&["sh", "-c", KILL, "sh"], &endpoint, &[])?;
    assert!(!killed.stdout.is_empty(), "it had no links yet: {killed:?}");
    assert!(
        eventually(LIMIT, || of_pods(&examined.node) == before),
        "{}",
        of_pods(&examined.node)
    );
    Ok(())
}

fn without_the_right_to_make_namespaces_the_probe_says_so() -> Outcome {
    const ONLY: &[&str] = &[
        "setpriv",
        "--bounding-set",
        "-all,+net_admin",
        "--inh-caps",
        "-all",
        "--",
    ];
    let examined = DoctorNode::start("m5.large", SimConfig::default())?;
    let endpoint = examined.lab.sim.ec2_endpoint();
    let output = examined.doctor_under(ONLY, &endpoint, &["--output", "json"])?;
    let report = Report::read(&output)?;
    let checks = report.report["checks"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let probe = checks.iter().find(|check| check["name"] == "probe");
    let probe = probe.ok_or("no check has this name")?;
    assert_eq!(probe["skipped"], true, "{probe}");
    let seen = probe["seen"].as_str().unwrap_or_default();
    assert!(
        seen.starts_with("no network namespace can be made: "),
        "{seen}"
    );
    Ok(())
}
