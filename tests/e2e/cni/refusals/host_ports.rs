//! Host ports, bandwidth and egress addresses that a pod cannot have: each refusal says why, and leaves nothing behind.

use std::{
    net::{TcpListener, UdpSocket},
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, count, plugin},
    wait::eventually,
};
use proto::refusal::Reason;
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::{
        ipv6::{SIX, own},
        refusals::expect_refusal,
    },
};

trials!(
    a_host_port_of_another_pod_is_refused_with_its_name,
    a_host_port_that_a_program_uses_is_refused,
    a_host_ip_of_another_family_is_refused,
    what_no_pod_can_have_is_refused_and_leaves_nothing,
    a_pod_is_refused_when_all_egress_addresses_are_in_use,
);

/// Until the daemon sees that an address of others is not in use any more.
const RELEASE: Duration = Duration::from_secs(60);

fn mapping(port: Value, protocol: &str, host_ip: &str) -> Value {
    json!({ "portMappings": [
        { "hostPort": port, "containerPort": 80, "protocol": protocol, "hostIP": host_ip }
    ]})
}

fn add(node: &Node, id: &str, asked: &Value) -> std::io::Result<plugin::Outcome> {
    let (_netns, path) = node.sandbox(id)?;
    let add = node.invocation("ADD", id, Some(&path));
    add.conf("runtimeConfig", asked.clone()).run(node.netns())
}

/// What a failed ADD must not change.
fn state(node: &Node) -> std::io::Result<String> {
    node.shell(
        "nft list ruleset; ip rule; ip -6 rule; ip route show table all | sort; ip -6 route show table all | grep -v fe80 | sort; \
         ip -o link | cut -d: -f2",
    )
}

fn a_host_port_of_another_pod_is_refused_with_its_name() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    for settings in [&[][..], &SIX[..]] {
        let mut node = lab.node("t3.small", settings)?;
        let (own, any) = match settings {
            [] => (node.instance.address.to_string(), "0.0.0.0"),
            _ => (own(&node).to_string(), "::"),
        };
        let holder = node.add_pod_asking("holder", &mapping(json!(8080), "tcp", ""))?;
        let before = state(&node)?;
        let words = ["8080/tcp", "lab/pod-holder", "holder"];
        for (n, host_ip) in ["", any, &*own].into_iter().enumerate() {
            let id = format!("rival{n}");
            let refused = add(&node, &id, &mapping(json!(8080), "tcp", host_ip))?;
            expect_refusal(&node, &refused, Reason::HostPortInUse, &words)?;
        }
        assert_eq!(state(&node)?, before);
        assert_eq!(count(&node, "assigned")?, 1);
        // Another protocol is another port, after a restart too.
        node.stop_daemon()?;
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let refused = add(&node, "late", &mapping(json!(8080), "tcp", ""))?;
        expect_refusal(&node, &refused, Reason::HostPortInUse, &words)?;
        let udp = node.add_pod_asking("udp", &mapping(json!(8080), "udp", ""))?;
        node.delete_pod(holder)?;
        let next = add(&node, "next", &mapping(json!(8080), "tcp", &own))?;
        assert!(next.succeeded(), "{next:?}");
        // An address has the port now, so not every address can have it.
        let refused = add(&node, "every", &mapping(json!(8080), "tcp", ""))?;
        expect_refusal(&node, &refused, Reason::HostPortInUse, &["lab/pod-next"])?;
        drop(udp);
    }
    Ok(())
}

fn a_host_port_that_a_program_uses_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    for (settings, tcp, udp) in [
        (&[][..], "127.0.0.1:8080", "0.0.0.0:8053"),
        (&SIX[..], "[::1]:8080", "[::]:8053"),
    ] {
        let node = lab.node("t3.small", settings)?;
        node.shell("ip link set lo up")?;
        let before = state(&node)?;
        let listener = node.netns().run(|| TcpListener::bind(tcp))??;
        let socket = node.netns().run(|| UdpSocket::bind(udp))??;
        for (protocol, port, program) in [("tcp", 8080, tcp), ("udp", 8053, udp)] {
            let id = format!("of-{protocol}");
            let refused = add(&node, &id, &mapping(json!(port), protocol, ""))?;
            let words = [program, "a program on the node"];
            expect_refusal(&node, &refused, Reason::HostPortInUse, &words)?;
        }
        assert_eq!(state(&node)?, before);
        assert_eq!(count(&node, "assigned")?, 0);
        drop((listener, socket));
        let added = add(&node, "free", &mapping(json!(8080), "tcp", ""))?;
        assert!(added.succeeded(), "{added:?}");
    }
    Ok(())
}

fn a_host_ip_of_another_family_is_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let before = state(&node)?;
    let refused = add(&node, "six", &mapping(json!(8080), "tcp", "fd00::5"))?;
    let words = ["[fd00::5]:8080/tcp", "IPv4"];
    expect_refusal(&node, &refused, Reason::InvalidRequest, &words)?;
    assert_eq!(state(&node)?, before);
    Ok(())
}

/// The plugin refuses it, so the daemon hears nothing.
fn what_no_pod_can_have_is_refused_and_leaves_nothing() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let before = state(&node)?;
    let limit = |rate: Value, burst: Value| json!({ "bandwidth": { "ingressRate": rate, "ingressBurst": burst } });
    let from = |rate: Value, burst: Value| json!({ "bandwidth": { "egressRate": rate, "egressBurst": burst } });
    let to_container = |port: u32| json!({ "portMappings": [{ "hostPort": 8080, "containerPort": port, "protocol": "tcp" }] });
    for (n, (asked, word)) in [
        (mapping(json!(0), "tcp", ""), "hostPort"),
        (mapping(json!(65536), "tcp", ""), "65536"),
        (mapping(json!("http"), "tcp", ""), "http"),
        (mapping(json!(8080), "icmp", ""), "icmp"),
        (mapping(json!(8080), "tcp", "here"), "here"),
        (limit(json!("1M"), json!(1)), "1M"),
        (limit(json!(999), json!(1)), "999"),
        (limit(json!(1_000_000), json!(0)), "burst"),
        (limit(json!(1e30), json!(1)), "1e+30"),
        (from(json!("1M"), json!(1)), "1M"),
        (from(json!(999), json!(1)), "999"),
        (from(json!(1_000_000), json!(0)), "burst"),
        (to_container(0), "containerPort"),
        (to_container(65536), "65536"),
    ]
    .into_iter()
    .enumerate()
    {
        let refused = add(&node, &format!("bad{n}"), &asked)?;
        assert_eq!(refused.error_code(), Some(7), "{refused:?}");
        let text = refused.error_text();
        assert!(text.contains(word), "{text}");
        assert!(text.contains("correct the ports"), "{text}");
    }
    assert_eq!(state(&node)?, before);
    assert_eq!(count(&node, "assigned")?, 0);
    Ok(())
}

/// Others have them all, so no 1,020 pods are needed.
fn a_pod_is_refused_when_all_egress_addresses_are_in_use() -> Outcome {
    let of_ipv4 = [("ENABLE_V6_EGRESS", "true")];
    let to_ipv6 = "for n in $(seq 2 1021); do printf 'route add fd00::ac:%x dev lo\\n' $n; done | ip -6 -batch -";
    let to_ipv4 = "for n in $(seq 2 1021); do echo route add 169.254.$((172 + n / 256)).$((n % 256)) dev lo; done | ip -batch -";
    for (settings, taken, names, given_back) in [
        (
            &of_ipv4[..],
            to_ipv6,
            ["IPv6", "ENABLE_V6_EGRESS=false"],
            "ip -6 route del fd00::ac:64 dev lo",
        ),
        (
            &SIX[..],
            to_ipv4,
            ["IPv4", "ENABLE_V4_EGRESS=false"],
            "ip route del 169.254.172.100 dev lo",
        ),
    ] {
        let lab = Lab::start(SimConfig::dual_stack())?;
        let mut node = lab.bare_node("t3.small", settings)?;
        node.shell(&format!("ip link set lo up; {taken}"))?;
        node.start_daemon(&lab.sim.ec2_endpoint())?;
        let before = state(&node)?;
        let refused = add(&node, "none", &Value::Null)?;
        let [family, setting] = names;
        let all = format!("all 1020 of the node's addresses for {family} destinations");
        expect_refusal(&node, &refused, Reason::PodLimit, &[&all, setting])?;
        assert_eq!(state(&node)?, before);
        assert_eq!(count(&node, "assigned")?, 0);
        node.shell(given_back)?;
        // The daemon looks again within seconds.
        let (_netns, path) = node.sandbox("one")?;
        let add = node.invocation("ADD", "one", Some(&path));
        let served = || add.run(node.netns()).is_ok_and(|added| added.succeeded());
        assert!(eventually(RELEASE, served), "{}", node.log());
    }
    Ok(())
}
