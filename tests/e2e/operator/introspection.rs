//! What a node serves over HTTP on its own loopback: the AWS VPC CNI's paths and JSON, our own, and to whom.

use std::{net::Ipv6Addr, os::unix::net::UnixStream};

use lab::{
    Lab,
    http::{Answer, exchange, get},
    node::Node,
};
use serde_json::{Value, json};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    the_stages_of_a_sandbox_are_found_by_an_id_prefix,
    decisions_are_shown_with_their_reason,
    foreign_host_names_are_refused,
    introspection_can_be_disabled_or_served_on_a_socket,
    no_whole_container_id_leaves_the_node,
    the_pool_is_shown_like_in_inspect,
    upstreams_paths_have_upstreams_shapes,
    ipv6_is_reported_in_upstreams_format_and_metrics,
);

const PORT: u16 = 61679;
const ID: &str = "0123456789abcdef0123456789abcdef";

fn ask(node: &Node, path: &str) -> std::io::Result<Answer> {
    get(node.netns(), PORT, path, &[])
}

fn json(node: &Node, path: &str) -> std::io::Result<Value> {
    let answer = ask(node, path)?;
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    Ok(serde_json::from_str(&answer.body)?)
}

fn upstreams_paths_have_upstreams_shapes() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    let pod = node.add_pod(ID)?;
    let root = json(&node, "/")?;
    assert_eq!(json(&node, "/nonsense")?, root);
    let commands = root["AvailableCommands"].as_array().expect("a list");
    assert!(commands.contains(&"/v1/enis".into()), "{root}");

    let enis = json(&node, "/v1/enis")?;
    let card = &enis["0"];
    assert_eq!(card["AssignedIPs"], 1, "{enis}");
    let primary = card["ENIs"].as_object().expect("ENIs by id").values();
    let primary = primary
        .into_iter()
        .find(|eni| eni["IsPrimary"] == true)
        .expect("the primary ENI");
    let address = pod.address().to_string();
    let cidr = &primary["AvailableIPv4Cidrs"][format!("{address}/32")];
    assert_eq!(cidr["Cidr"]["Mask"], "/////w==", "{enis}");
    assert_eq!(cidr["IsPrefix"], false);
    let used = &cidr["IPAddresses"][&address];
    assert_eq!(used["IPAMMetadata"]["k8sPodName"], format!("pod-{ID}"));
    assert_eq!(used["IPAMKey"]["containerID"], "");
    assert!(
        used["AssignedTime"]
            .as_str()
            .is_some_and(|t| t.starts_with("20")),
        "{used}"
    );

    assert_eq!(ask(&node, "/v1/eni-configs")?.status, 404);
    assert_eq!(json(&node, "/v1/ipamd-env-settings")?["WARM_IP_TARGET"], 2);
    let network = json(&node, "/v1/networkutils-env-settings")?;
    assert_eq!(network["AWS_VPC_K8S_CNI_VETHPREFIX"], "eni", "{network}");
    assert_eq!(network["AWS_VPC_K8S_CNI_CONNMARK"], 128);
    Ok(())
}

fn ipv6_is_reported_in_upstreams_format_and_metrics() -> Outcome {
    let lab = ipv6::start()?;
    let node = lab.node("m5.large", &ipv6::SIX)?;
    let (pod, gone) = (node.add_pod(ID)?, node.add_pod("gone")?);
    let (address, left) = (pod.address(), gone.address());
    node.delete_pod(gone)?;
    let prefix = {
        let world = lab.sim.world();
        let primary = world.interface(&node.instance.eni).expect("it is attached");
        primary.ipv6_prefixes[0]
    };

    let enis = json(&node, "/v1/enis")?;
    let card = &enis["0"];
    // A /80 prefix, as the AWS VPC CNI counts it.
    assert_eq!(card["TotalIPs"], 1_u64 << 48, "{enis}");
    assert_eq!(card["AssignedIPs"], 1, "{enis}");
    let primary = &card["ENIs"][&node.instance.eni.0];
    assert_eq!(primary["AvailableIPv4Cidrs"], json!({}), "{enis}");
    let block = &primary["IPv6Cidrs"][prefix.to_string()];
    let cidr = json!({"IP": prefix.network(), "Mask": "/////////////wAAAAAAAA=="});
    assert_eq!(block["Cidr"], cidr, "{enis}");
    assert_eq!(block["IsPrefix"], true, "{enis}");
    let used = &block["IPAddresses"][address.to_string()];
    assert_eq!(used["Address"], json!(address), "{enis}");
    assert_eq!(used["IPAMMetadata"]["k8sPodName"], format!("pod-{ID}"));
    let rests = &block["IPAddresses"][left.to_string()]["UnassignedTime"];
    assert!(
        rests.as_str().is_some_and(|t| t.starts_with("20")),
        "{enis}"
    );

    // In the order of addresses, and only those of interest.
    let pool = json(&node, "/v1/pool")?;
    let listed = pool["enis"][0]["addresses"].as_array().expect("a list");
    let listed: Vec<Ipv6Addr> = listed
        .iter()
        .map(|a| a["address"].as_str().unwrap_or_default().parse())
        .collect::<Result<_, _>>()?;
    assert!(listed.is_sorted() && listed.len() <= 32, "{pool}");
    assert_eq!(
        pool["enis"][0]["prefixes"],
        json!([prefix.to_string()]),
        "{pool}"
    );

    for (name, value) in [
        ("awscni_total_ip_addresses", 1 << 48),
        ("awscni_assigned_ip_addresses", 1),
        ("awscni_total_ipv4_prefixes", 1),
        ("awscni_eni_allocated", 1),
        ("awscni_eni_max", 1),
        (
            &format!("awscni_assigned_ip_per_cidr{{cidr=\"{prefix}\"}}"),
            1,
        ),
        (
            &format!(
                "awscni_assigned_ip_per_eni{{eni=\"{}\"}}",
                node.instance.eni
            ),
            1,
        ),
    ] {
        assert_eq!(node.metric(name)?, value, "{name}");
    }
    let inspected = node.ask(&lab.sim.ec2_endpoint(), &["inspect"])?;
    let text = String::from_utf8_lossy(&inspected.stdout).into_owned();
    for told in [&*address.to_string(), "the rest of the prefix free"] {
        assert!(text.contains(told), "{told}: {text}");
    }
    Ok(())
}

fn the_pool_is_shown_like_in_inspect() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "1")])?;
    node.add_pod(ID)?;
    let pool = json(&node, "/v1/pool")?;
    let inspected = node.ask(&lab.sim.ec2_endpoint(), &["inspect", "--output", "json"])?;
    let inspected: Value = serde_json::from_slice(&inspected.stdout)?;
    for key in ["instance", "instanceType", "podLimit", "podLimitWhy"] {
        assert_eq!(pool[key], inspected[key], "{key}");
    }
    assert_eq!(pool["totals"]["assigned"], 1);
    Ok(())
}

fn decisions_are_shown_with_their_reason() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    node.add_pod(ID)?;
    let decisions = json(&node, "/v1/decisions")?;
    let said: Vec<_> = decisions.as_array().expect("a list").iter().collect();
    let assigned = said.iter().find(|d| {
        d["what"]
            .as_str()
            .is_some_and(|what| what.starts_with("assign "))
    });
    let why = assigned.and_then(|d| d["why"].as_str()).unwrap_or_default();
    assert!(!why.is_empty(), "{decisions}");
    Ok(())
}

fn the_stages_of_a_sandbox_are_found_by_an_id_prefix() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[("WARM_IP_TARGET", "2")])?;
    let pod = node.add_pod(ID)?;
    node.delete_pod(pod)?;
    for name in [ID, "0123456789ab", "0123"] {
        let trace = json(&node, &format!("/v1/trace?sandbox={name}"))?;
        let told: Vec<_> = trace
            .as_array()
            .expect("a list")
            .iter()
            .map(|stage| {
                format!(
                    "{} {}",
                    stage["verb"].as_str().unwrap_or_default(),
                    stage["what"].as_str().unwrap_or_default()
                )
            })
            .collect();
        let expected = [
            "add turn",
            "add address",
            "add wire",
            "add commit",
            "add ok",
            "del turn",
            "del unwire",
            "del commit",
            "del ok",
        ];
        assert_eq!(told, expected, "{trace}");
    }
    assert_eq!(ask(&node, "/v1/trace")?.status, 400);
    assert_eq!(json(&node, "/v1/trace?sandbox=ffff")?, Value::Array(vec![]));
    Ok(())
}

fn no_whole_container_id_leaves_the_node() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    node.add_pod(ID)?;
    for path in [
        "/",
        "/v1/enis",
        "/v1/pool",
        "/v1/decisions",
        "/v1/trace?sandbox=0123",
    ] {
        let body = ask(&node, path)?.body;
        // In this lab, the pod's name contains the id; the sandbox must not.
        assert!(
            !body.replace(&format!("pod-{ID}"), "").contains(ID),
            "{path}: {body}"
        );
        assert!(!body.contains("eth0"), "{path}: {body}");
    }
    Ok(())
}

fn foreign_host_names_are_refused() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &[])?;
    let answer = get(
        node.netns(),
        PORT,
        "/v1/pool",
        &[("Host", "rebound.example.com")],
    )?;
    assert_eq!(answer.status, 421, "{answer:?}");
    assert!(!answer.body.contains("i-"), "{answer:?}");
    Ok(())
}

fn introspection_can_be_disabled_or_served_on_a_socket() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let off = lab.node("t3.small", &[("DISABLE_INTROSPECTION", "true")])?;
    assert!(ask(&off, "/").is_err());
    let path = lab.dir().join("introspection.sock");
    let bind = format!("unix:{}", path.display());
    let mut node = lab.node("t3.small", &[("INTROSPECTION_BIND_ADDRESS", &bind)])?;
    assert!(ask(&node, "/").is_err());
    assert_eq!(
        exchange(UnixStream::connect(&path)?, "/v1/pool", &[])?.status,
        200
    );
    // A socket that a killed daemon left is not a problem.
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(
        exchange(UnixStream::connect(&path)?, "/v1/pool", &[])?.status,
        200
    );
    Ok(())
}
