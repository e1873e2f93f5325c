//! Custom networking: the node's ENIConfig, its changes, and an API server that is away.

use std::collections::BTreeMap;

use lab::{node::Pod, wait::eventually};
use proto::refusal::Reason;
use serde_json::json;

use super::vpc::{PATIENCE, Vpc, serve, shows};
use crate::{
    suite::{Outcome, trials},
    support::{
        reboot::after_reboot,
        refusals::{add_within, expect_refusal},
    },
};

trials!(
    a_changed_eni_config_lets_the_old_enis_leave_with_their_pods,
    a_missing_eni_config_is_named_in_the_error_and_on_the_node,
    a_rebooted_node_without_the_api_server_uses_its_enis_and_no_other_eni_config,
    pods_use_the_subnet_and_the_groups_of_the_eni_config,
    several_subnets_of_an_eni_config_are_used_by_weight,
    the_last_known_eni_config_outlives_the_api_server_and_the_daemon,
);

const ZONE: (&str, &str) = ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone");

fn pods_use_the_subnet_and_the_groups_of_the_eni_config() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let group = vpc.group()?;
    let (mut node, server) = vpc.custom_node("t3.small", &[ZONE])?;
    let spec =
        json!({ "subnet": vpc.subnets[1].to_string(), "securityGroups": [group.to_string()] });
    server.put_config("us-west-2a", &spec);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    // Two ENIs of three addresses; the primary one serves no pods.
    for n in 0..6 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_eq!(vpc.subnet_of(pod.address()), Some(1));
        let world = vpc.lab.sim.world();
        let eni = world.owner_of(pod.address()).ok_or("no owner")?;
        assert_eq!(eni.groups, std::slice::from_ref(&group));
    }
    let (_netns, path) = node.sandbox("beyond")?;
    let refused = node
        .invocation("ADD", "beyond", Some(&path))
        .run(node.netns())?;
    assert!(
        refused.error_text().contains("6 pod addresses"),
        "{refused:?}"
    );
    assert!(
        refused
            .error_text()
            .contains("the primary one serves no pods"),
        "{refused:?}"
    );
    assert_eq!(vpc.enis(&node), BTreeMap::from([(0, 1), (1, 2)]));
    let primary = node.instance.eni.clone();
    let world = vpc.lab.sim.world();
    let addresses = world.interface(&primary).map_or(0, |eni| eni.ipv4.len());
    assert_eq!(addresses, 1, "the primary ENI has its own address only");
    drop(world);
    assert_eq!(vpc.calls("DescribeSubnets"), 1);
    assert_eq!(vpc.calls("CreateNetworkInterface"), 2);
    shows(&vpc, &node, "serves no pods: custom networking")
}

fn a_missing_eni_config_is_named_in_the_error_and_on_the_node() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let conf = vpc.lab.dir().join("net.d");
    std::fs::create_dir_all(&conf)?;
    let conf = conf.display().to_string();
    let settings = [
        ZONE,
        ("HAWSER_NODE_EVENTS", "true"),
        ("HOST_CNI_CONFDIR_PATH", conf.as_str()),
    ];
    let (mut node, server) = vpc.custom_node("m5.large", &settings)?;
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let told = || {
        node.log()
            .contains("the ENIConfig \\\"us-west-2a\\\" of this node does not exist")
    };
    assert!(eventually(PATIENCE, told), "{}", node.log());
    let words = [
        "the ENIConfig \"us-west-2a\" of this node does not exist",
        "topology.kubernetes.io/zone",
    ];
    expect_refusal(&node, &add_within(&node, 3)?, Reason::NoSubnet, &words)?;
    assert_eq!(node.metric("hawser_open_subnets")?, 0);
    let event = || {
        let events = server.events();
        events.iter().any(|(reason, message)| {
            reason == "NoSubnetForENIs" && message.contains("does not exist")
        })
    };
    assert!(
        eventually(PATIENCE, event),
        "{:?}\n{}",
        server.events(),
        node.log()
    );
    server.put_config(
        "us-west-2a",
        &json!({ "subnet": vpc.subnets[1].to_string() }),
    );
    let pod = node.add_pod("late")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(1));
    let over = || {
        server
            .events()
            .iter()
            .any(|(reason, _)| reason == "SubnetForENIs")
    };
    assert!(eventually(PATIENCE, over), "{:?}", server.events());
    Ok(())
}

fn several_subnets_of_an_eni_config_are_used_by_weight() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/28", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("m5.xlarge", &[ZONE])?;
    let [small, large] = [1, 2].map(|n| vpc.subnets[n].to_string());
    let spec =
        json!({ "subnet": small, "subnets": [{ "id": small, "weight": 1 }, { "id": large }] });
    server.put_config("us-west-2a", &spec);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let pods: Vec<Pod> = (0..25)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<Result<_, _>>()?;
    let mut by_subnet = BTreeMap::<_, usize>::new();
    for pod in &pods {
        *by_subnet.entry(vpc.subnet_of(pod.address())).or_default() += 1;
    }
    // A /28 has eleven addresses, one of which is the ENI's own.
    let small = by_subnet.get(&Some(1)).copied().unwrap_or(0);
    let large = by_subnet.get(&Some(2)).copied().unwrap_or(0);
    assert!(
        (9..=10).contains(&small) && small + large == 25,
        "{by_subnet:?}\n{}",
        node.log()
    );
    Ok(())
}

fn a_changed_eni_config_lets_the_old_enis_leave_with_their_pods() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("m5.xlarge", &[ZONE])?;
    let spec = |subnet: usize| json!({ "subnet": vpc.subnets[subnet].to_string() });
    server.put_config("us-west-2a", &spec(1));
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let old = node.add_pod("old")?;
    server.put_config("us-west-2a", &spec(2));
    shows(
        &vpc,
        &node,
        "leaves with its pods: the node's ENIConfig has another subnet or other groups",
    )?;
    let new = node.add_pod("new")?;
    assert_eq!(vpc.subnet_of(new.address()), Some(2), "{}", node.log());
    let reached = lab::traffic::ping::ping(&new.netns, None, old.address(), PATIENCE)?;
    assert!(
        reached.is_some(),
        "the old pod lost its network\n{}",
        node.log()
    );
    node.delete_pod(old)?;
    let gone = || vpc.enis(&node) == BTreeMap::from([(0, 1), (2, 1)]);
    // An ENI that is younger than a minute is kept.
    assert!(
        eventually(3 * PATIENCE, gone),
        "{:?}\n{}",
        vpc.enis(&node),
        node.log()
    );
    Ok(())
}

fn the_last_known_eni_config_outlives_the_api_server_and_the_daemon() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("t3.small", &[])?;
    let spec = |subnet: usize| json!({ "subnet": vpc.subnets[subnet].to_string() });
    server.put_config("pods", &spec(1));
    // If the Node could not be read, this one would be used by mistake.
    server.put_config("default", &spec(2));
    server.change(|node| {
        node["metadata"]["annotations"] = json!({ "k8s.amazonaws.com/eniConfig": "pods" });
    });
    let address = server.address.to_string();
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let first = node.add_pod("first")?;
    assert_eq!(vpc.subnet_of(first.address()), Some(1));
    drop(server);
    node.kill_daemon()?;
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    for n in 0..4 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_eq!(vpc.subnet_of(pod.address()), Some(1), "{}", node.log());
    }
    assert_eq!(vpc.enis(&node), BTreeMap::from([(0, 1), (1, 2)]));
    // A server without the annotation: now the name is known to be the default one.
    let server = serve(&node, &address)?;
    server.put_config("default", &spec(2));
    shows(&vpc, &node, "leaves with its pods")
}

/// The state of the last boot is gone, and with it the name of the ENIConfig.
fn a_rebooted_node_without_the_api_server_uses_its_enis_and_no_other_eni_config() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("t3.small", &[ZONE])?;
    let spec = |subnet: usize| json!({ "subnet": vpc.subnets[subnet].to_string() });
    server.put_config("us-west-2a", &spec(1));
    server.put_config("default", &spec(2));
    let address = server.address.to_string();
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let before = node.add_pod("before")?;
    assert_eq!(vpc.subnet_of(before.address()), Some(1));
    drop(server);
    node.kill_daemon()?;
    node.end_pod(before)?;
    after_reboot(&vpc.lab, || {
        node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
        for n in 0..3 {
            let pod = node.add_pod(&format!("pod{n}"))?;
            assert_eq!(vpc.subnet_of(pod.address()), Some(1), "{}", node.log());
        }
        let words = ["has not told the ENIConfig of the Node"];
        expect_refusal(&node, &add_within(&node, 3)?, Reason::NoSubnet, &words)?;
        assert_eq!(vpc.enis(&node), BTreeMap::from([(0, 1), (1, 1)]));
        let server = serve(&node, &address)?;
        server.change(|node| {
            node["metadata"]["labels"] = json!({ "topology.kubernetes.io/zone": "us-west-2a" });
        });
        server.put_config("default", &spec(2));
        server.put_config("us-west-2a", &spec(1));
        let late = node.add_pod("late")?;
        assert_eq!(vpc.subnet_of(late.address()), Some(1), "{}", node.log());
        Ok(())
    })
}
