//! Pods that ask for a bandwidth get it, in each direction, and no more; it is restored, survives and is checked.

use std::{io, net::SocketAddr, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod},
    traffic::throughput::throughput,
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    pods_are_held_to_their_rates_in_each_direction,
    pods_are_held_to_their_rates_towards_other_nodes,
    pods_of_ipv6_are_held_to_their_rates,
    rates_are_restored_and_outlast_the_daemon,
    check_names_what_a_pod_removed_on_its_own_end,
    a_pod_without_rates_has_no_bucket,
);

const MEGA: u64 = 1_000_000;
const GIGA: u64 = 1000 * MEGA;
const LIMIT: Duration = Duration::from_secs(20);
/// Runtimes pass this if the pod asks for a rate only.
const NO_BURST: u64 = (1 << 32) - 1;
const PORT: u16 = 5001;
/// A busy machine may stop a sender for a while. No pod may ever get more than its rate.
const ATTEMPTS: usize = 4;

fn rates(ingress: u64, egress: u64) -> Value {
    json!({ "bandwidth": {
        "ingressRate": ingress, "ingressBurst": NO_BURST, "egressRate": egress, "egressBurst": NO_BURST,
    } })
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the values are made in place"
)]
fn add(node: &Node, id: &str, asked: Value) -> io::Result<Pod> {
    node.add_pod_asking(id, &asked)
}

/// From pod to pod.
fn measured(from: &Pod, to: &Pod, seconds: u64) -> io::Result<f64> {
    let at = SocketAddr::from((to.address(), PORT));
    throughput(&from.netns, (&to.netns, at), Duration::from_secs(seconds))
}

/// A pod on `node` with these rates in both directions, against `peer`. `free` has no rates.
#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn held(node: &Node, (free, peer): (&Pod, &Pod), rate: u64, seconds: u64) -> Outcome {
    let pod = add(node, &format!("pod-{rate}"), rates(rate, rate))?;
    for (what, from, to) in [("to", peer, &pod), ("from", &pod, peer)] {
        let mut seen = Vec::new();
        let within = |share: &f64| *share >= 0.9;
        while seen.len() < ATTEMPTS && !seen.iter().any(within) {
            let share = measured(from, to, seconds)? / rate as f64;
            assert!(share <= 1.1, "{what} the pod: {share} of {rate} bit/s");
            seen.push(share);
        }
        stdout::errln!("{what} the pod, {rate} bit/s: {seen:?}");
        // Others may use the machine meanwhile.
        let reached = || Ok::<_, io::Error>(measured(free, peer, 2)? > 2.0 * rate as f64);
        assert!(
            seen.iter().any(within) || !reached()?,
            "{what} the pod: {seen:?} of {rate} bit/s"
        );
    }
    node.delete_pod(pod)?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "rates for people")]
fn pods_are_held_to_their_rates_in_each_direction() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("IP_COOLDOWN_PERIOD", "0"),
    ];
    let node = lab.node("m5.large", &settings)?;
    let (peer, free) = (node.add_pod("peer")?, node.add_pod("free")?);
    let reached = measured(&free, &peer, 2)?;
    stdout::errln!("without a limit: {reached:.3e} bit/s");
    for (rate, seconds) in [
        (MEGA, 8),
        (10 * MEGA, 4),
        (100 * MEGA, 3),
        (GIGA, 3),
        (4 * GIGA, 3),
        (10 * GIGA, 3),
    ] {
        // What the machine does not reach without a bucket, no bucket can give.
        if reached < 1.5 * rate as f64 {
            stdout::errln!("{rate} bit/s: not reached");
            continue;
        }
        held(&node, (&free, &peer), rate, seconds)?;
    }
    Ok(())
}

fn pods_are_held_to_their_rates_towards_other_nodes() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (node, elsewhere) = (lab.node("m5.large", &[])?, lab.node("m5.large", &[])?);
    let (free, peer) = (node.add_pod("free")?, elsewhere.add_pod("peer")?);
    for (rate, seconds) in [(10 * MEGA, 4), (100 * MEGA, 3)] {
        held(&node, (&free, &peer), rate, seconds)?;
    }
    Ok(())
}

fn pods_of_ipv6_are_held_to_their_rates() -> Outcome {
    let lab = ipv6::start()?;
    let node = lab.node("m5.large", &ipv6::SIX)?;
    let (free, peer) = (node.add_pod("free")?, node.add_pod("peer")?);
    for (rate, seconds) in [(10 * MEGA, 4), (100 * MEGA, 3)] {
        held(&node, (&free, &peer), rate, seconds)?;
    }
    Ok(())
}

/// Both ends, as `tc` shows them.
fn buckets(node: &Node, pod: &Pod) -> io::Result<String> {
    let host_end = lab::node::host_link(pod);
    let host = node.shell(&format!("tc qdisc show dev {host_end} root"))?;
    let inside = pod.netns.run(|| {
        let mut tc = std::process::Command::new("tc");
        tc.args(["qdisc", "show", "dev", "eth0", "root"]).output()
    })??;
    Ok(format!("{host}{}", String::from_utf8_lossy(&inside.stdout)))
}

fn rates_are_restored_and_outlast_the_daemon() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    let pod = add(&node, "pod", rates(20 * MEGA, 30 * MEGA))?;
    let right = buckets(&node, &pod)?;
    assert!(
        right.contains("rate 20Mbit") && right.contains("rate 30Mbit"),
        "{right}"
    );
    let host_end = lab::node::host_link(&pod);
    let repairs = "hawser_repairs_total{kind=\"qdisc\"}";
    for restart in [false, true] {
        if restart {
            node.kill_daemon()?;
            node.start_daemon(&lab.sim.ec2_endpoint())?;
        }
        for damage in [
            "del dev LINK root",
            "replace dev LINK root tbf rate 1gbit burst 1m limit 1m",
        ] {
            let before = node.metric(repairs).unwrap_or(0);
            node.shell(&format!("tc qdisc {}", damage.replace("LINK", &host_end)))?;
            let whole = || buckets(&node, &pod).is_ok_and(|now| now == right);
            assert!(eventually(LIMIT, whole), "{damage}\n{}", node.log());
            assert!(eventually(LIMIT, || node
                .metric(repairs)
                .is_ok_and(|n| n > before)));
        }
    }
    // While no daemon runs, too.
    node.kill_daemon()?;
    node.shell(&format!("tc qdisc del dev {host_end} root"))?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let whole = || buckets(&node, &pod).is_ok_and(|now| now == right);
    assert!(eventually(LIMIT, whole), "{}", node.log());
    Ok(())
}

fn check(node: &Node, pod: &Pod) -> io::Result<lab::node::plugin::Outcome> {
    let check = node.invocation("CHECK", &pod.id, Some(&pod.path));
    check
        .conf("prevResult", pod.added.json.clone())
        .run(node.netns())
}

/// A pod with privileges in its own namespace can remove what is there. The daemon cannot look into it, but CHECK can.
fn check_names_what_a_pod_removed_on_its_own_end() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let pod = add(&node, "pod", rates(20 * MEGA, 30 * MEGA))?;
    assert!(check(&node, &pod)?.succeeded());
    let removed = pod.netns.run(|| {
        let mut tc = std::process::Command::new("tc");
        tc.args(["qdisc", "del", "dev", "eth0", "root"]).status()
    })??;
    assert!(removed.success());
    let found = check(&node, &pod)?;
    assert!(
        found
            .error_text()
            .contains("does not hold the pod to 3750000 bytes"),
        "{found:?}"
    );
    Ok(())
}

fn a_pod_without_rates_has_no_bucket() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let pod = node.add_pod("pod")?;
    assert!(!buckets(&node, &pod)?.contains("tbf"));
    Ok(())
}
