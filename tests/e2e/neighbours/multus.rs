//! Multus calls the plugin for a further interface of a pod, beside ours or beside another plugin's.

use std::{io, net::IpAddr, path::Path, process::Command, time::Duration};

use datapath::{netlink::Family, netns::Netns, pod::upstream_host_name};
use lab::{
    Lab,
    node::{
        Node, Pod, count,
        plugin::{Invocation, Outcome as Answer},
    },
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
    },
    wait::eventually,
};
use serde_json::json;
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    case_08_a_second_interface_beside_our_own_works_and_ends_alone,
    case_08_a_second_interface_beside_another_plugins_leaves_its_default_route,
    case_08_gc_releases_single_attachments,
    attachments_get_what_they_ask_for_and_end_one_by_one,
);

const LIMIT: Duration = Duration::from_secs(10);

/// A verb for `net1` of the sandbox, under the name of its own network.
fn net1(node: &Node, verb: &str, id: &str, path: &Path) -> Invocation {
    node.invocation(verb, id, Some(path))
        .conf("name", json!("second"))
        .variable("CNI_IFNAME", "net1")
}

fn succeeds(node: &Node, invocation: &Invocation) -> io::Result<Answer> {
    let answer = invocation.run(node.netns())?;
    if answer.succeeded() {
        return Ok(answer);
    }
    Err(io::Error::other(format!("{answer:?}\n{}", node.log())))
}

fn inside(netns: &Netns, script: &str) -> io::Result<String> {
    let output = netns.run(|| Command::new("sh").args(["-ec", script]).output())??;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(io::Error::other(text(&output.stderr))),
    }
}

/// The node itself, another node of the VPC, and a pod there all get answers from this address.
fn expect_reachable(from: [&Netns; 3], address: IpAddr) -> Outcome {
    for (n, netns) in from.into_iter().enumerate() {
        assert!(
            ping(netns, None, address, LIMIT)?.is_some(),
            "{n}: {address}"
        );
    }
    Ok(())
}

/// CHECK of both attachments, each with its own result.
fn expect_checked(node: &Node, pod: &Pod, second: &Answer) -> Outcome {
    let check = node.invocation("CHECK", &pod.id, Some(&pod.path));
    succeeds(node, &check.conf("prevResult", pod.added.json.clone()))?;
    let check = net1(node, "CHECK", &pod.id, &pod.path);
    succeeds(node, &check.conf("prevResult", second.json.clone()))?;
    Ok(())
}

fn case_08_a_second_interface_beside_our_own_works_and_ends_alone() -> Outcome {
    beside_our_own(Family::V4)?;
    beside_our_own(Family::V6)
}

fn beside_our_own(family: Family) -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let (settings, ip, gateway): (&[_], _, _) = match family {
        Family::V4 => (&[], "ip -4", "169.254.1.1"),
        Family::V6 => (&ipv6::SIX, "ip -6", "fe80::1"),
    };
    let mut node = lab.node("t3.small", settings)?;
    let elsewhere = lab.node("t3.small", settings)?;
    let far = elsewhere.add_pod("far")?;
    let pod = node.add_pod("pod")?;
    let state = format!("{ip} route; {ip} rule; ip -o addr show eth0");
    let before = inside(&pod.netns, &state)?;
    let add = net1(&node, "ADD", "pod", &pod.path);
    let second = succeeds(&node, &add)?;
    assert_ne!(second.address(), pod.address());
    // What Multus and chained plugins see.
    assert_eq!(second.json.get("routes"), None, "{second:?}");
    assert_eq!(second.json["ips"][0]["gateway"], gateway);
    let name = upstream_host_name("eni", "lab", "pod-pod.net1");
    assert_eq!(second.json["interfaces"][0]["name"], name);
    assert_eq!(succeeds(&node, &add)?.json, second.json);
    let defaults = inside(&pod.netns, &format!("{ip} route show default"))?;
    assert_eq!(defaults.lines().count(), 1, "{defaults}");
    assert!(defaults.contains("dev eth0"), "{defaults}");

    for restart in [false, true] {
        if restart {
            node.kill_daemon()?;
            node.start_daemon(&lab.sim.ec2_endpoint())?;
        }
        for address in [pod.address(), second.address()] {
            expect_reachable([node.netns(), elsewhere.netns(), &far.netns], address)?;
            let out = ping(&pod.netns, Some(address), far.address(), LIMIT)?;
            assert!(out.is_some(), "{address} reaches nothing");
        }
        expect_checked(&node, &pod, &second)?;
        assert_eq!(count(&node, "assigned")?, 2);
    }

    succeeds(&node, &net1(&node, "DEL", "pod", &pod.path))?;
    assert_eq!(count(&node, "assigned")?, 1);
    let silence = Duration::from_millis(300);
    assert!(ping(node.netns(), None, second.address(), silence)?.is_none());
    expect_reachable([node.netns(), elsewhere.netns(), &far.netns], pod.address())?;
    let gone = || inside(&pod.netns, "ip link show net1").is_err();
    assert!(eventually(LIMIT, gone));
    assert_eq!(inside(&pod.netns, &state)?, before);
    // The first may end before the second, too.
    let second = succeeds(&node, &add)?;
    let first = node.invocation("DEL", "pod", Some(&pod.path));
    succeeds(&node, &first)?;
    assert!(ping(node.netns(), None, second.address(), LIMIT)?.is_some());
    assert_eq!(count(&node, "assigned")?, 1);
    Ok(())
}

/// Another plugin is the cluster's default, and connects pods to a bridge.
fn case_08_a_second_interface_beside_another_plugins_leaves_its_default_route() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let elsewhere = lab.node("t3.small", &[])?;
    let far = elsewhere.add_pod("far")?;
    let (netns, path) = node.sandbox("pod")?;
    let theirs = "ip link add eth0 type veth peer name bridge0; ip link set eth0 up; ip link set bridge0 up; \
                  ip addr add 192.0.2.2/24 dev eth0; ip route add default via 192.0.2.1";
    inside(&netns, theirs)?;
    let before = inside(&netns, "ip route")?;
    let second = succeeds(&node, &net1(&node, "ADD", "pod", &path))?;
    assert_eq!(inside(&netns, "ip route show default")?.lines().count(), 1);
    expect_reachable(
        [node.netns(), elsewhere.netns(), &far.netns],
        second.address(),
    )?;
    let check = net1(&node, "CHECK", "pod", &path);
    let check = check.conf("prevResult", second.json.clone());
    succeeds(&node, &check)?;
    // CHECK is about what was made.
    inside(&netns, "ip rule del pref 32765")?;
    let broken = check.run(node.netns())?;
    assert!(
        broken.error_text().contains("does not send packets"),
        "{broken:?}"
    );
    succeeds(&node, &net1(&node, "DEL", "pod", &path))?;
    let restored = || inside(&netns, "ip route").is_ok_and(|routes| routes == before);
    assert!(
        eventually(LIMIT, restored),
        "{}",
        inside(&netns, "ip route")?
    );
    assert_eq!(count(&node, "assigned")?, 0);
    Ok(())
}

fn case_08_gc_releases_single_attachments() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let pod = node.add_pod("pod")?;
    let second = succeeds(&node, &net1(&node, "ADD", "pod", &pod.path))?;
    let gc = |name: &str, valid: serde_json::Value| {
        let gc = node
            .invocation("GC", "", None)
            .conf("cniVersion", json!("1.1.0"));
        let gc = gc.conf("name", json!(name));
        succeeds(&node, &gc.conf("cni.dev/valid-attachments", valid))
    };
    let eth0 = json!([{ "containerID": "pod", "ifname": "eth0" }]);
    let both = json!([{ "containerID": "pod", "ifname": "net1" }]);
    gc("aws-cni", eth0.clone())?;
    gc("second", both)?;
    assert_eq!(count(&node, "assigned")?, 2);
    gc("second", eth0)?;
    assert_eq!(count(&node, "assigned")?, 1);
    assert!(ping(node.netns(), None, pod.address(), LIMIT)?.is_some());
    let silence = Duration::from_millis(300);
    assert!(ping(node.netns(), None, second.address(), silence)?.is_none());
    Ok(())
}

/// The interfaces of one pod, in the order in which they are added: no name has a meaning. Each has a host port of its own.
const INTERFACES: [(&str, u16); 3] = [("net0", 8080), ("eth0", 8081), ("net7", 8082)];
const PORT: u16 = 80;

fn attachment(node: &Node, verb: &str, path: &Path, (ifname, port): (&str, u16)) -> Invocation {
    let bits = 50_000_000;
    let asked = json!({
        "portMappings": [{ "hostPort": port, "containerPort": PORT, "protocol": "tcp" }],
        "bandwidth": { "ingressRate": bits, "ingressBurst": bits, "egressRate": bits, "egressBurst": bits },
    });
    node.invocation(verb, "pod", Some(path))
        .conf("name", json!(format!("of-{ifname}")))
        .conf("runtimeConfig", asked)
        .variable("CNI_IFNAME", ifname)
}

/// The devices of the pod's default routes in main, of both families.
fn defaults(netns: &Netns) -> io::Result<Vec<String>> {
    let shown = inside(netns, "ip -4 route show default; ip -6 route show default")?;
    let device = |line: &str| {
        line.split(' ')
            .skip_while(|w| *w != "dev")
            .nth(1)
            .map(str::to_owned)
    };
    Ok(shown.lines().filter_map(device).collect())
}

fn attachments_get_what_they_ask_for_and_end_one_by_one() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let of_ipv4 = [("ENABLE_V6_EGRESS", "true")];
    for settings in [&of_ipv4[..], &ipv6::SIX] {
        let node = lab.node("t3.small", settings)?;
        let own = match settings.len() {
            1 => IpAddr::from(node.instance.address),
            _ => ipv6::own(&node),
        };
        let (netns, path) = node.sandbox("pod")?;
        let mut living = Vec::new();
        for interface in INTERFACES {
            let add = attachment(&node, "ADD", &path, interface);
            let added = succeeds(&node, &add)?;
            let address = added.address();
            let listener = Listener::start(&netns, (address, PORT).into(), interface.0)?;
            living.push((interface, added, listener));
        }
        assert_eq!(defaults(&netns)?, ["net0", "net0"]);
        let call = |port: u16| {
            let to = (own, port).into();
            TcpConnection::start(lab.sim.internet(), None, to, Duration::from_secs(2))
        };
        // The first one ends before the others.
        while !living.is_empty() {
            assert_eq!(count(&node, "assigned")?, living.len());
            for (interface, added, _) in &living {
                let (ifname, port) = *interface;
                assert_eq!(call(port)?.with, ifname);
                let shown = inside(&netns, &format!("tc qdisc show dev {ifname} root"))?;
                assert!(shown.contains("rate 50Mbit"), "{shown}");
                let check = attachment(&node, "CHECK", &path, *interface);
                let check = check.conf("prevResult", added.json.clone());
                succeeds(&node, &check)?;
            }
            let (interface, added, listener) = living.remove(0);
            succeeds(&node, &attachment(&node, "DEL", &path, interface))?;
            drop(listener);
            assert!(call(interface.1).is_err(), "{interface:?}");
            let silence = ping(
                node.netns(),
                None,
                added.address(),
                Duration::from_millis(300),
            );
            assert!(!matches!(silence, Ok(Some(_))), "{interface:?}");
        }
        let only_loopback = || {
            let links = inside(&netns, "ip -o link");
            links.is_ok_and(|links| links.lines().count() == 1)
        };
        assert!(eventually(LIMIT, only_loopback), "{}", node.log());
        assert_eq!(defaults(&netns)?, Vec::<String>::new());
        let ports = node.shell("nft list ruleset")?;
        assert!(!ports.contains(". 808"), "{ports}");
    }
    Ok(())
}
