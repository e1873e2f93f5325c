//! Multus calls the plugin for a further interface of a pod, beside ours or beside another plugin's.

use std::{io, net::IpAddr, path::Path, process::Command, time::Duration};

use datapath::{netns::Netns, pod::upstream_host_name};
use lab::{
    Lab,
    node::{
        Node, Pod, count,
        plugin::{Invocation, Outcome as Answer},
    },
    traffic::ping::ping,
};
use serde_json::json;
use vpc_sim::SimConfig;

use crate::suite::{Outcome, trials};

trials!(
    case_08_a_second_interface_beside_our_own_works_and_ends_alone,
    case_08_a_second_interface_beside_another_plugins_leaves_its_default_route,
    case_08_gc_releases_single_attachments,
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
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("t3.small", &[])?;
    let elsewhere = lab.node("t3.small", &[])?;
    let far = elsewhere.add_pod("far")?;
    let pod = node.add_pod("pod")?;
    let before = inside(&pod.netns, "ip route; ip rule; ip -o addr show eth0")?;
    let add = net1(&node, "ADD", "pod", &pod.path);
    let second = succeeds(&node, &add)?;
    assert_ne!(second.address(), pod.address());
    // What Multus and chained plugins see.
    assert_eq!(second.json.get("routes"), None, "{second:?}");
    assert_eq!(second.json["ips"][0]["gateway"], "169.254.1.1");
    let name = upstream_host_name("eni", "lab", "pod-pod.net1");
    assert_eq!(second.json["interfaces"][0]["name"], name);
    assert_eq!(succeeds(&node, &add)?.json, second.json);
    let defaults = inside(&pod.netns, "ip route show default")?;
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
    assert!(lab::wait::eventually(LIMIT, gone));
    let after = inside(&pod.netns, "ip route; ip rule; ip -o addr show eth0")?;
    assert_eq!(after, before);
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
        lab::wait::eventually(LIMIT, restored),
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
