//! The standard plugins before and behind ours in the chain: our result is enough for them, and what they make stays.

use std::{
    io::{self, Write as _},
    net::{IpAddr, SocketAddr},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, Pod, host_link},
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
    },
};
use serde_json::{Value, json};
use vpc_sim::{SimConfig, fabric::INTERNET_ADDRESS_V6};

use crate::suite::{Outcome, trials};

trials!(
    a_standard_plugin_before_ours_keeps_its_part_of_the_result,
    standard_plugins_work_behind_ours_with_everything_switched_on,
    sbr_works_behind_a_second_attachment,
);

const LIMIT: Duration = Duration::from_secs(10);
const DIRECTORY: &str = "/usr/lib/cni";

/// Executes a standard plugin as a runtime does.
fn call(
    node: &Node,
    (verb, ifname): (&str, &str),
    (id, path): (&str, &Path),
    plugin: &Value,
    prev: &Value,
) -> io::Result<Value> {
    let mut conf = plugin.clone();
    conf["cniVersion"] = json!("1.0.0");
    conf["name"] = json!("aws-cni");
    conf["prevResult"] = prev.clone();
    let kind = plugin["type"].as_str().unwrap_or_default();
    let mut command = Command::new(format!("{DIRECTORY}/{kind}"));
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", path)
        .env("CNI_IFNAME", ifname)
        .env("CNI_PATH", DIRECTORY)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = node.netns().run(|| -> io::Result<_> {
        let mut child = command.spawn()?;
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(conf.to_string().as_bytes())?;
        drop(stdin);
        child.wait_with_output()
    })??;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        return Err(io::Error::other(format!("{verb} {kind}: {said}")));
    }
    Ok(serde_json::from_str(&said).unwrap_or(Value::Null))
}

/// ADD of ours and then of each of `chain`; the last result.
fn add(node: &Node, id: &str, chain: &[Value]) -> io::Result<(Pod, Value)> {
    let pod = node.add_pod(id)?;
    let mut result = pod.added.json.clone();
    for plugin in chain {
        result = call(node, ("ADD", "eth0"), (id, &pod.path), plugin, &result)?;
    }
    Ok((pod, result))
}

fn inside(pod: &Pod, command: &str) -> io::Result<String> {
    let output = pod
        .netns
        .run(|| Command::new("sh").args(["-ec", command]).output())??;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn standard_plugins_work_behind_ours_with_everything_switched_on() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let node = lab.node("t3.small", &[("ENABLE_V6_EGRESS", "true")])?;
    let elsewhere = lab.node("t3.small", &[])?;
    let chain = [
        json!({ "type": "tuning", "sysctl": { "net.ipv4.ip_unprivileged_port_start": "0", "net.core.somaxconn": "500" } }),
        json!({ "type": "bandwidth", "ingressRate": 50_000_000, "ingressBurst": 8_000_000 }),
        json!({
            "type": "portmap",
            "capabilities": { "portMappings": true },
            "snat": true,
            "backend": "iptables",
            "runtimeConfig": { "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }] },
        }),
        json!({ "type": "firewall", "backend": "iptables" }),
    ];
    let (pod, last) = add(&node, "pod", &chain)?;
    let host_end = host_link(&pod);
    assert_eq!(last["interfaces"][0]["name"], json!(host_end), "{last}");
    assert_eq!(last["interfaces"][1]["sandbox"], json!(pod.path), "{last}");
    assert_eq!(inside(&pod, "cat /proc/sys/net/core/somaxconn")?, "500");
    let listener = SocketAddr::from((pod.address(), 80));
    let _listener = Listener::start(&pod.netns, listener, "pod")?;
    let port = SocketAddr::from((node.instance.address, 8080));
    let call_of = |netns| TcpConnection::start(netns, None, port, LIMIT);
    assert_eq!(call_of(elsewhere.netns())?.with, "pod");
    assert!(ping(&pod.netns, None, INTERNET_ADDRESS_V6, LIMIT)?.is_some());
    // Theirs is not ours to repair.
    let theirs = node.shell(&format!("tc qdisc show dev {host_end} root"))?;
    assert!(theirs.contains("tbf"), "{theirs}");
    node.shell("ip rule del pref 512")?;
    let repaired = || {
        node.shell("ip rule")
            .is_ok_and(|rules| rules.contains("512:"))
    };
    assert!(lab::wait::eventually(LIMIT, repaired));
    assert_eq!(
        node.shell(&format!("tc qdisc show dev {host_end} root"))?,
        theirs
    );

    let ours = node.invocation("CHECK", "pod", Some(&pod.path));
    let checked = ours.conf("prevResult", last.clone()).run(node.netns())?;
    assert!(checked.succeeded(), "{checked:?}");
    // Its CHECK looks for chains of both families, whatever the pod has.
    let checked = chain.iter().filter(|plugin| plugin["type"] != "portmap");
    for plugin in checked {
        call(&node, ("CHECK", "eth0"), ("pod", &pod.path), plugin, &last)?;
    }
    for plugin in chain.iter().rev() {
        call(&node, ("DEL", "eth0"), ("pod", &pod.path), plugin, &last)?;
    }
    node.delete_pod(pod)?;
    assert_eq!(lab::node::count(&node, "assigned")?, 0);
    Ok(())
}

/// `loopback` before ours, `tuning` behind: each gets what those before it have made.
fn a_standard_plugin_before_ours_keeps_its_part_of_the_result() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let (node, elsewhere) = (lab.node("t3.small", &[])?, lab.node("t3.small", &[])?);
    let before = json!({ "type": "loopback" });
    let behind = json!({ "type": "tuning", "sysctl": { "net.core.somaxconn": "500" } });
    let (netns, path) = node.sandbox("pod")?;
    let theirs = |verb, plugin: &Value, prev: &Value| {
        call(&node, (verb, "eth0"), ("pod", &path), plugin, prev)
    };
    let first = theirs("ADD", &before, &Value::Null)?;
    assert_eq!(first["interfaces"][0]["name"], "lo", "{first}");
    let ours = |verb: &str, prev: &Value| {
        let invocation = node.invocation(verb, "pod", Some(&path));
        let invocation = invocation.conf("cniVersion", json!("1.0.0"));
        invocation
            .conf("prevResult", prev.clone())
            .run(node.netns())
    };
    let added = ours("ADD", &first)?;
    assert!(added.succeeded(), "{added:?}");
    let last = theirs("ADD", &behind, &added.json)?;
    assert_eq!(last["interfaces"][0], first["interfaces"][0], "{last}");
    assert_eq!(last["ips"][0], first["ips"][0], "{last}");
    let own = last["ips"].as_array().and_then(|ips| ips.last()).cloned();
    let own = own.unwrap_or_default()["address"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let address: IpAddr = own.trim_end_matches("/32").parse()?;
    assert!(ping(elsewhere.netns(), None, address, LIMIT)?.is_some());
    for checked in [ours("CHECK", &last)?, ours("DEL", &last)?] {
        assert!(checked.succeeded(), "{checked:?}");
    }
    theirs("DEL", &before, &last)?;
    assert_eq!(lab::node::count(&node, "assigned")?, 0);
    drop(netns);
    Ok(())
}

/// Behind a second attachment, it sends the attachment's packets by its own interface, as ours does.
fn sbr_works_behind_a_second_attachment() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let elsewhere = lab.node("t3.small", &[])?;
    let pod = node.add_pod("pod")?;
    let net1 = |verb| {
        let call = node.invocation(verb, "pod", Some(&pod.path));
        call.conf("name", json!("second"))
            .variable("CNI_IFNAME", "net1")
    };
    let second = net1("ADD").run(node.netns())?;
    assert!(second.succeeded(), "{second:?}");
    let sbr = json!({ "type": "sbr" });
    let target = ("pod", pod.path.as_path());
    let result = call(&node, ("ADD", "net1"), target, &sbr, &second.json)?;
    for address in [pod.address(), second.address()] {
        let there = ping(elsewhere.netns(), None, address, LIMIT)?;
        assert!(there.is_some(), "{address}");
    }
    call(&node, ("DEL", "net1"), target, &sbr, &result)?;
    assert!(net1("DEL").run(node.netns())?.succeeded());
    let alone = || inside(&pod, "ip rule").is_ok_and(|rules| rules.lines().count() == 3);
    assert!(
        lab::wait::eventually(LIMIT, alone),
        "{}",
        inside(&pod, "ip rule")?
    );
    Ok(())
}
