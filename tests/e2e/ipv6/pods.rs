//! IPv6 mode with the real daemon: pods in one /80 prefix on the primary ENI, and what a pod must not be able to do.

use std::{net::UdpSocket, time::Duration};

use datapath::netlink::{Family, Socket, route::LOCAL};
use lab::{
    node::{Node, Pod, count},
    traffic::ping::{ping, ping_once, unanswered},
    wait::eventually,
};
use serde_json::json;
use vpc_sim::fabric::INTERNET_ADDRESS_V6;

use crate::{
    suite::{Outcome, trials},
    support::ipv6::{LIMIT, SIX, own, pods, start},
};

trials!(
    pods_reach_each_other_and_the_nodes,
    nothing_is_translated_on_the_way_out,
    a_new_pod_answers_the_first_packet,
    a_pods_result_is_ipv6_in_every_version,
    after_del_nothing_is_left,
    a_restarted_daemon_knows_its_pods,
    pods_are_adopted_when_the_record_is_lost,
    an_add_beyond_the_limit_is_refused_with_the_figure,
    one_call_serves_a_node,
    a_node_that_cannot_be_of_ipv6_is_refused_with_the_reason,
);

const SOON: Duration = Duration::from_secs(20);

fn pods_reach_each_other_and_the_nodes() -> Outcome {
    let lab = start()?;
    let (a, b) = (lab.node("m5.large", &SIX)?, lab.node("m5.large", &SIX)?);
    let (on_a, on_b) = (pods(&a, 3)?, pods(&b, 3)?);
    assert!(on_a.iter().all(|pod| pod.address().is_ipv6()));
    assert_eq!(unanswered(&on_a, &on_a)?, [], "on one node");
    assert_eq!(unanswered(&on_a, &on_b)?, [], "from a to b");
    assert_eq!(unanswered(&on_b, &on_a)?, [], "from b to a");
    for pod in &on_a {
        for node in [&a, &b] {
            let there = ping(node.netns(), None, pod.address(), LIMIT)?;
            let back = ping(&pod.netns, None, own(node), LIMIT)?;
            assert!(there.is_some(), "{} does not reach the pod", own(node));
            assert!(back.is_some(), "the pod does not reach {}", own(node));
        }
    }
    Ok(())
}

fn nothing_is_translated_on_the_way_out() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let pod = node.add_pod("pod")?;
    let outside = lab
        .sim
        .internet()
        .run(|| UdpSocket::bind((INTERNET_ADDRESS_V6, 7000)))??;
    outside.set_read_timeout(Some(SOON))?;
    assert!(ping(&pod.netns, None, INTERNET_ADDRESS_V6, LIMIT)?.is_some());
    let inside = pod.netns.run(|| UdpSocket::bind((pod.address(), 0)))??;
    inside.send_to(b"x", (INTERNET_ADDRESS_V6, 7000))?;
    let (_, from) = outside.recv_from(&mut [0; 8])?;
    assert_eq!(from, inside.local_addr()?, "address and port are the pod's");
    let back = ping(lab.sim.internet(), None, pod.address(), LIMIT)?;
    assert!(back.is_some(), "the internet does not reach the pod");
    Ok(())
}

/// With duplicate address detection, packets would fail in the first second, in both directions.
fn a_new_pod_answers_the_first_packet() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let first = node.add_pod("first")?;
    for n in 0..20 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        let there = ping_once(node.netns(), pod.address(), LIMIT)?;
        assert!(there.is_some(), "pod {n} lost the node's first packet");
        let out = ping_once(&pod.netns, first.address(), LIMIT)?;
        assert!(out.is_some(), "pod {n}'s own first packet was lost");
        let mut inside = Socket::open_in(&pod.netns)?;
        let eth0 = inside.link_by_name("eth0")?.expect("wired").index;
        let addresses = inside.addresses(Family::V6, Some(eth0))?;
        let told: Vec<_> = addresses.iter().map(|a| (a.address, a.no_dad)).collect();
        assert_eq!(told, [(pod.address(), true)], "and no link-local one");
    }
    Ok(())
}

fn a_pods_result_is_ipv6_in_every_version() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    for (version, family) in [("0.4.0", json!("6")), ("1.0.0", json!(null))] {
        let id = format!("pod-{version}");
        let (_netns, path) = node.sandbox(&id)?;
        let invoke = |verb| {
            let invocation = node.invocation(verb, &id, Some(&path));
            invocation.conf("cniVersion", json!(version))
        };
        let added = invoke("ADD").run(node.netns())?;
        assert!(added.succeeded(), "{added:?}");
        let ip = &added.json["ips"][0];
        assert_eq!(ip["address"], json!(format!("{}/128", added.address())));
        assert_eq!(
            (&ip["gateway"], &ip["version"]),
            (&json!("fe80::1"), &family)
        );
        let default = json!([{"dst": "::/0", "gw": "fe80::1"}]);
        assert_eq!(added.json["routes"], default);
        let check = invoke("CHECK").conf("prevResult", added.json.clone());
        let checked = check.run(node.netns())?;
        assert!(checked.succeeded(), "{checked:?}");
        assert!(invoke("DEL").run(node.netns())?.succeeded());
    }
    Ok(())
}

/// Links, and the routes of every table, of both families.
fn kernel_state(node: &Node) -> Result<Vec<String>, datapath::netlink::Error> {
    let mut socket = Socket::open_in(node.netns())?;
    let mut lines: Vec<String> = socket.links()?.into_iter().map(|l| l.name).collect();
    for family in [Family::V4, Family::V6] {
        let routes = socket.routes(family, None)?;
        // The node's own link-local address may appear shortly after its first pod.
        let lasting = routes.iter().filter(|route| route.table != LOCAL);
        lines.extend(lasting.map(|route| format!("{route:?}")));
    }
    lines.sort();
    Ok(lines)
}

fn after_del_nothing_is_left() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    node.delete_pod(node.add_pod("warm-up")?)?;
    let links_gone = |state: &[String]| state.iter().all(|line| !line.starts_with("eni"));
    let settled = || kernel_state(&node).is_ok_and(|state| links_gone(&state));
    assert!(eventually(SOON, settled));
    let before = kernel_state(&node)?;
    let placed = pods(&node, 3)?;
    assert_ne!(kernel_state(&node)?, before);
    let addresses: Vec<_> = placed.iter().map(Pod::address).collect();
    for pod in placed {
        node.delete_pod(pod)?;
    }
    for address in addresses {
        let answer = ping(node.netns(), None, address, Duration::from_millis(200))?;
        assert!(answer.is_none(), "{address} still answers");
    }
    assert!(
        eventually(SOON, || kernel_state(&node).is_ok_and(|s| s == before)),
        "{before:#?}\n{:#?}",
        kernel_state(&node)?
    );
    assert!(eventually(SOON, || count(&node, "assigned").is_ok_and(|n| n == 0)));
    Ok(())
}

fn a_restarted_daemon_knows_its_pods() -> Outcome {
    let lab = start()?;
    let mut node = lab.node("m5.large", &SIX)?;
    let mut placed = pods(&node, 5)?;
    node.kill_daemon()?;
    assert_eq!(unanswered(&placed, &placed)?, [], "without a daemon");
    // Without EC2: everything necessary is on disk and in the kernel.
    node.start_daemon("http://203.0.113.99")?;
    assert_eq!(count(&node, "assigned")?, 5);
    placed.push(node.add_pod("sixth")?);
    let distinct: std::collections::BTreeSet<_> = placed.iter().map(Pod::address).collect();
    assert_eq!(distinct.len(), 6);
    assert_eq!(unanswered(&placed, &placed)?, []);
    let first = placed.remove(0);
    node.delete_pod(first)?;
    assert!(eventually(SOON, || count(&node, "assigned").is_ok_and(|n| n == 5)));
    Ok(())
}

fn pods_are_adopted_when_the_record_is_lost() -> Outcome {
    let lab = start()?;
    let mut node = lab.node("m5.large", &SIX)?;
    let mut placed = pods(&node, 3)?;
    node.kill_daemon()?;
    std::fs::remove_file(node.state_file())?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(count(&node, "assigned")?, 3);
    placed.push(node.add_pod("fourth")?);
    let distinct: std::collections::BTreeSet<_> = placed.iter().map(Pod::address).collect();
    assert_eq!(distinct.len(), 4);
    assert_eq!(unanswered(&placed, &placed)?, []);
    Ok(())
}

fn an_add_beyond_the_limit_is_refused_with_the_figure() -> Outcome {
    let lab = start()?;
    // Two ENIs with two addresses: with IPv4 prefixes 2 × 1 × 16.
    let node = lab.node("t3.nano", &SIX)?;
    let placed = pods(&node, 32)?;
    let (_netns, path) = node.sandbox("one-too-many")?;
    let refused = node
        .invocation("ADD", "one-too-many", Some(&path))
        .run(node.netns())?;
    assert_eq!(refused.error_code(), Some(11), "{refused:?}");
    let text = refused.error_text();
    assert!(
        text.contains("all 32 pod addresses") && text.contains("IPv6"),
        "{text}"
    );
    assert_eq!(placed.len(), 32);
    Ok(())
}

/// The AWS VPC CNI also asks EC2 once; but if that fails, or the prefix is lost, it never asks again.
fn one_call_serves_a_node() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    pods(&node, 30)?;
    let calls = lab.sim.calls();
    let changing: Vec<_> = calls
        .iter()
        .map(|call| call.action.as_str())
        .filter(|name| !name.starts_with("Describe"))
        .collect();
    assert_eq!(changing, ["AssignIpv6Addresses"]);
    let world = lab.sim.world();
    let primary = world.interface(&node.instance.eni).expect("it is attached");
    assert_eq!(primary.ipv6_prefixes.len(), 1);
    assert!(primary.ipv4_prefixes.is_empty() && primary.ipv4.len() == 1);
    Ok(())
}

/// The AWS VPC CNI's manifest sets `ENABLE_IPv4=true`: adding IPv6 to it enables both.
fn a_node_that_cannot_be_of_ipv6_is_refused_with_the_reason() -> Outcome {
    let lab = start()?;
    let six = |four, prefixes| {
        [
            ("ENABLE_IPv4", four),
            ("ENABLE_IPv6", "true"),
            ("ENABLE_PREFIX_DELEGATION", prefixes),
        ]
    };
    let custom = ("AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true");
    for (kind, settings, named) in [
        ("m5.large", six("true", "true").to_vec(), "ENABLE_IPv6=true"),
        (
            "m5.large",
            vec![("ENABLE_IPv4", "false"), ("ENABLE_IPv6", "false")],
            "ENABLE_IPv4=false",
        ),
        (
            "m5.large",
            six("false", "false").to_vec(),
            "ENABLE_PREFIX_DELEGATION=false",
        ),
        (
            "m5.large",
            [&six("false", "true")[..], &[custom]].concat(),
            "CUSTOM_NETWORK_CFG=true",
        ),
        (
            "m5.large",
            [&six("false", "true")[..], &[("POD_MTU", "1000")]].concat(),
            "POD_MTU=1000",
        ),
        // Without Nitro there are no prefixes, and IPv6 needs them.
        (
            "t2.medium",
            six("false", "true").to_vec(),
            "t2.medium is not a Nitro instance",
        ),
    ] {
        let mut node = lab.bare_node(kind, &settings)?;
        let ended = node.run_daemon(&lab.sim.ec2_endpoint())?;
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            !ended.status.success() && said.contains(named),
            "{named}: {said}"
        );
    }
    Ok(())
}
