//! `ipamd inspect` on a live node, on a dead one, and while things change.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
    time::Duration,
};

use crate::support::golden;
use lab::{
    Lab,
    node::{Node, binaries},
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::{Action, Fault, FaultKind, SimConfig};

use crate::suite::{Outcome, trials};

trials!(
    a_call_under_way_is_shown_with_its_age,
    a_dead_daemons_state_file_is_read_and_left_alone,
    a_live_node_is_drawn,
    a_pod_that_waits_is_shown_with_its_cause,
    nobody_there_is_an_error,
    prefixes_are_shown_with_the_addresses_in_use,
    watching_follows_the_pods,
    what_a_pod_has_besides_its_address_is_shown,
);

const WARM: &[(&str, &str)] = &[("WARM_IP_TARGET", "2")];

fn inspect(lab: &Lab, node: &Node, more: &[&str]) -> std::io::Result<Output> {
    let mut all = vec!["inspect"];
    all.extend(more);
    node.ask(&lab.sim.ec2_endpoint(), &all)
}

fn as_json(lab: &Lab, node: &Node) -> std::io::Result<Value> {
    let output = inspect(lab, node, &["--output", "json"])?;
    serde_json::from_slice(&output.stdout)
        .map_err(|error| std::io::Error::other(format!("{error}: {output:?}")))
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Replaces ages and generated values of the simulated EC2, which differ between runs.
fn without_accidents(view: &str) -> String {
    let word = |word: &str| -> String {
        let bare = word.trim_end_matches(',');
        let comma = &word[bare.len()..];
        let name = ["eni-", "i-", "subnet-"]
            .into_iter()
            .find(|prefix| bare.starts_with(prefix) && bare.len() > prefix.len() + 7);
        match name {
            Some(prefix) => format!("{prefix}…{comma}"),
            None if bare.starts_with("10.0.") => format!("10.0.…{comma}"),
            None if bare.matches(':').count() == 5 => format!("MAC{comma}"),
            None => word.to_owned(),
        }
    };
    let words = |line: &str| {
        let indent = &line[..line.len() - line.trim_start().len()];
        let words: Vec<_> = line.split_whitespace().map(word).collect();
        format!("{indent}{}\n", words.join(" "))
    };
    let lines = view.lines().map(|line| {
        // "for 1.2 s" of an ENI, and the third column of an address.
        let mut parts: Vec<_> = line.split(' ').collect();
        while let Some(at) = parts
            .iter()
            .position(|part| part.trim_end_matches(',') == "s")
        {
            parts.splice(at - 1..=at, ["AGE"]);
        }
        words(&parts.join(" "))
    });
    lines.collect()
}

fn a_live_node_is_drawn() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.large", WARM)?;
    node.add_pod("web")?;
    let settled = || {
        as_json(&lab, &node).is_ok_and(|view| {
            view["totals"]["free"] == 2 && view["calls"].as_array().is_some_and(Vec::is_empty)
        })
    };
    assert!(
        eventually(Duration::from_secs(20), settled),
        "{}",
        node.log()
    );
    let output = inspect(&lab, &node, &[])?;
    assert!(output.status.success(), "{output:?}");
    golden::compare("inspect.txt", &without_accidents(&text(&output)))?;

    let view = as_json(&lab, &node)?;
    assert_eq!(view["source"], "live");
    assert_eq!(view["podLimit"], 27);
    assert_eq!(view["decision"]["verdict"], "rest");
    let addresses = view["enis"][0]["addresses"]
        .as_array()
        .ok_or("no addresses")?;
    let web = addresses
        .iter()
        .find(|a| a["state"] == "assigned")
        .ok_or("no pod")?;
    assert_eq!(web["pod"], "lab/pod-web");
    assert_eq!(web["sandbox"], "web/eth0");
    Ok(())
}

fn a_pod_that_waits_is_shown_with_its_cause() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    for action in [
        Action::AssignPrivateIpAddresses,
        Action::CreateNetworkInterface,
    ] {
        let always = Fault::error(action, u32::MAX, "UnauthorizedOperation");
        lab.sim.faults().push(always);
    }
    let node = lab.node("t3.small", WARM)?;
    let (_netns, path) = node.sandbox("late")?;
    let add = node.invocation("ADD", "late", Some(&path));
    std::thread::scope(|scope| -> Outcome {
        let adding = scope.spawn(|| add.run(node.netns()));
        let waits = || {
            as_json(&lab, &node).is_ok_and(|view| {
                let cause = view["waiting"][0]["cause"].as_str().unwrap_or_default();
                cause.contains("IAM denies ec2:")
            })
        };
        assert!(
            eventually(Duration::from_secs(20), waits),
            "{:?}",
            as_json(&lab, &node)
        );
        let drawn = text(&inspect(&lab, &node, &[])?);
        assert!(
            drawn.contains("refused   IAM denies ec2:AssignPrivateIpAddresses")
                && drawn.contains("WAITING")
                && drawn.contains("lab/pod-late"),
            "{drawn}"
        );
        lab.sim.faults().clear();
        let added = adding.join().map_err(|_| "the ADD panicked")??;
        assert!(added.succeeded(), "{added:?}");
        Ok(())
    })
}

fn a_call_under_way_is_shown_with_its_age() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    lab.sim.faults().push(Fault {
        action: Action::CreateNetworkInterface,
        times: 1,
        kind: FaultKind::Hang,
    });
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "5")])?;
    let calls = || -> Vec<Value> {
        let view = as_json(&lab, &node).unwrap_or_default();
        let calls = view["calls"].as_array().cloned().unwrap_or_default();
        let creates = |call: &Value| call["action"] == "CreateNetworkInterface";
        calls.into_iter().filter(creates).collect()
    };
    let one = || calls().len() == 1;
    assert!(eventually(Duration::from_secs(20), one), "{}", node.log());
    let age = |calls: Vec<Value>| calls.first().and_then(|call| call["ageMs"].as_u64());
    let first = age(calls()).ok_or("no call")?;
    let older = || age(calls()).is_some_and(|age| age > first);
    assert!(eventually(Duration::from_secs(5), older), "{:?}", calls());
    let drawn = text(&inspect(&lab, &node, &[])?);
    let lines: Vec<_> = drawn
        .lines()
        .filter(|line| line.starts_with("call "))
        .collect();
    assert!(
        matches!(&*lines, [line] if line.contains("CreateNetworkInterface") && line.contains(" s")),
        "{drawn}"
    );
    Ok(())
}

fn prefixes_are_shown_with_the_addresses_in_use() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_PREFIX_TARGET", "1"),
    ];
    let node = lab.node("m5.large", &settings)?;
    let pod = node.add_pod("web")?;
    let view = as_json(&lab, &node)?;
    let prefixes = view["enis"][0]["prefixes"]
        .as_array()
        .ok_or("no prefixes")?;
    assert!(!prefixes.is_empty(), "{view}");
    let drawn = text(&inspect(&lab, &node, &[])?);
    let prefix = prefixes[0].as_str().unwrap_or_default();
    let address = pod.address().to_string();
    let line = |begin: &str, words: &[&str]| {
        let mut lines = drawn.lines().map(str::trim_start);
        lines.any(|line| line.starts_with(begin) && words.iter().all(|word| line.contains(word)))
    };
    assert!(line("prefixes  ", &[prefix]), "{drawn}");
    assert!(line(&address, &["assigned", "lab/pod-web"]), "{drawn}");
    Ok(())
}

fn a_dead_daemons_state_file_is_read_and_left_alone() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", WARM)?;
    node.add_pod("stays")?;
    let gone = node.add_pod("goes")?;
    node.delete_pod(gone)?;
    // Killed: the file is not closed cleanly, and must still be readable.
    node.kill_daemon()?;
    let before = fs::read(node.state_file())?;
    let output = inspect(&lab, &node, &[])?;
    assert!(output.status.success(), "{output:?}");
    let drawn = text(&output);
    assert!(
        drawn.contains("1 pod addresses in use, from the state file")
            && drawn.contains("lab/pod-stays")
            && drawn.contains("free again in"),
        "{drawn}"
    );
    assert!(
        complaint(&output).contains("no daemon answers"),
        "{output:?}"
    );
    let copy = lab.dir().join("copied-state");
    fs::copy(node.state_file(), &copy)?;
    let copied = inspect(&lab, &node, &["--state", &copy.display().to_string()])?;
    assert!(text(&copied).contains("lab/pod-stays"), "{copied:?}");
    assert_eq!(
        fs::read(node.state_file())?,
        before,
        "the file was written to"
    );
    // No lock is left behind.
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    Ok(())
}

fn nobody_there_is_an_error() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.bare_node("m5.large", &[])?;
    let output = inspect(&lab, &node, &[])?;
    assert_eq!(output.status.code(), Some(1));
    let told = complaint(&output);
    assert!(
        told.contains("no daemon answers") && told.contains("state file cannot be read"),
        "{told}"
    );
    let junk = lab.dir().join("junk");
    fs::write(&junk, "not a database")?;
    let output = inspect(&lab, &node, &["--state", &junk.display().to_string()])?;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let watched = inspect(&lab, &node, &["--watch"])?;
    assert_eq!(watched.status.code(), Some(1), "{watched:?}");
    Ok(())
}

fn watching_follows_the_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", WARM)?;
    let socket = node.socket();
    let mut child = Command::new(binaries::ipamd())
        .args(["inspect", "--watch", "--output", "json", "--socket"])
        .arg(socket)
        .env_clear()
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no pipe")?).lines();
    let mut until = |assigned: u64| -> Outcome {
        for line in &mut lines {
            let view: Value = serde_json::from_str(&line?)?;
            if view["totals"]["assigned"] == assigned {
                return Ok(());
            }
        }
        Err(format!("the stream ended before {assigned} pods").into())
    };
    until(0)?;
    let pod = node.add_pod("one")?;
    until(1)?;
    node.delete_pod(pod)?;
    until(0)?;
    node.stop_daemon()?;
    let rest = lines.count();
    let ended = child.wait()?;
    assert_eq!(
        ended.code(),
        Some(1),
        "after {rest} more lines: the daemon has ended"
    );
    Ok(())
}

/// By the daemon, and by its state file when it is gone.
fn what_a_pod_has_besides_its_address_is_shown() -> Outcome {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let mut node = lab.node("m5.large", &[("ENABLE_V6_EGRESS", "true")])?;
    node.add_pod("plain")?;
    let own = node.instance.address.to_string();
    let port = |number: u16, protocol: &str, address: &str| json!({ "hostPort": number, "containerPort": 80, "protocol": protocol, "hostIP": address });
    let asked = json!({
        "portMappings": [port(8080, "tcp", ""), port(8081, "udp", &own)],
        "bandwidth": { "ingressRate": 20_000_000, "ingressBurst": 1_000_000, "egressRate": 3_000_000, "egressBurst": 1_000_000 },
    });
    node.add_pod_asking("web", &asked)?;
    for source in ["live", "file"] {
        if source == "file" {
            node.kill_daemon()?;
        }
        let view = as_json(&lab, &node)?;
        assert_eq!(view["source"], source);
        let of = |pod: &str| {
            let addresses = view["enis"][0]["addresses"].as_array();
            let mut all = addresses.into_iter().flatten();
            all.find(|a| a["pod"] == pod).cloned().unwrap_or_default()
        };
        let (web, plain) = (of("lab/pod-web"), of("lab/pod-plain"));
        let ports = json!([
            { "protocol": "tcp", "hostIP": null, "hostPort": 8080, "containerPort": 80 },
            { "protocol": "udp", "hostIP": own, "hostPort": 8081, "containerPort": 80 },
        ]);
        assert_eq!(web["hostPorts"], ports, "{view}");
        assert_eq!(web["bandwidth"], asked["bandwidth"], "{view}");
        let egress = web["egressAddress"].as_str().ok_or("no egress address")?;
        assert!(egress.starts_with("fd00::ac:"), "{view}");
        assert_eq!(plain["hostPorts"], json!([]));
        assert_eq!(plain["bandwidth"], Value::Null);
        assert_ne!(plain["egressAddress"], egress);
        let drawn = text(&inspect(&lab, &node, &[])?);
        let extras = format!(
            "port 8080/tcp to 80, port {own}:8081/udp to 80, ingress 20 Mbit/s, egress 3 Mbit/s, IPv6 by {egress}"
        );
        let of_web = drawn.lines().find(|line| line.contains("lab/pod-web"));
        assert!(of_web.is_some_and(|line| line.contains(&extras)), "{drawn}");
    }
    Ok(())
}
