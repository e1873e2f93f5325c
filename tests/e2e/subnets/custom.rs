//! Custom networking: the node's ENIConfig, its changes, and an API server that is away.

use std::collections::BTreeMap;

use lab::{
    crash::clock_offset::ClockOffset,
    fakes::api_server::ApiServer,
    node::{Node, Pod},
    traffic::ping::ping,
    wait::eventually,
};
use proto::refusal::Reason;
use serde_json::json;

use super::vpc::{PATIENCE, Vpc, shows};
use crate::{
    suite::{Outcome, trials},
    support::{
        kubernetes::serve,
        reboot::after_reboot,
        refusals::{add_one_within, add_within, expect_refusal},
    },
};

trials!(
    a_changed_eni_config_lets_the_old_enis_leave_with_their_pods,
    a_group_of_another_vpc_is_named_and_stops_only_growth,
    a_deleted_eni_config_leaves_the_pods_their_network,
    a_missing_eni_config_is_named_in_the_error_and_on_the_node,
    a_rebooted_node_without_the_api_server_uses_its_enis_and_no_other_eni_config,
    a_wrong_eni_config_is_named_in_the_error_and_on_the_node,
    an_idle_node_calls_ec2_for_nothing,
    pods_use_the_subnet_and_the_groups_of_the_eni_config,
    several_subnets_of_an_eni_config_are_used_by_weight,
    the_last_known_eni_config_outlives_the_api_server_and_the_daemon,
    while_the_node_cannot_be_read_no_eni_config_is_used,
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
    let of = |action| vpc.calls(action);
    let calls = of("AttachNetworkInterface") + of("ModifyNetworkInterfaceAttribute");
    assert!(calls <= 2 * 2, "{:?}", vpc.lab.sim.calls());
    shows(&vpc, &node, "serves no pods: custom networking")
}

/// A node of custom networking that tells the cluster about its subnets.
fn telling_node(vpc: &Vpc, kind: &str) -> Result<(Node, ApiServer), Box<dyn std::error::Error>> {
    let conf = vpc.lab.dir().join("net.d");
    std::fs::create_dir_all(&conf)?;
    let conf = conf.display().to_string();
    let settings = [
        ZONE,
        ("HAWSER_NODE_EVENTS", "true"),
        ("HOST_CNI_CONFDIR_PATH", conf.as_str()),
    ];
    vpc.custom_node(kind, &settings)
}

/// Waits for an event of this reason with this text.
fn tells(node: &Node, server: &ApiServer, reason: &str, text: &str) -> Outcome {
    let told = || {
        let events = server.events();
        let mut events = events.iter();
        events.any(|(of, message)| of == reason && message.contains(text))
    };
    match eventually(PATIENCE, told) {
        true => Ok(()),
        false => {
            let events = server.events();
            Err(format!("{reason} {text:?} is not in {events:?}\n{}", node.log()).into())
        }
    }
}

fn a_missing_eni_config_is_named_in_the_error_and_on_the_node() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let (mut node, server) = telling_node(&vpc, "m5.large")?;
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
    tells(&node, &server, "NoSubnetForENIs", "does not exist")?;
    server.put_config(
        "us-west-2a",
        &json!({ "subnet": vpc.subnets[1].to_string() }),
    );
    let pod = node.add_pod("late")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(1));
    tells(&node, &server, "SubnetForENIs", "")
}

fn a_wrong_eni_config_is_named_in_the_error_and_on_the_node() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'b')])?;
    let [right, far] = [1, 2].map(|n| vpc.subnets[n].to_string());
    let (mut node, server) = telling_node(&vpc, "t3.small")?;
    let wrong = [
        (
            json!({ "subnet": "pods" }),
            "has \"pods\" for a subnet, which is not the id of one",
        ),
        (
            json!({ "subnet": right, "securityGroups": ["pods"] }),
            "has \"pods\" for a security group, which is not the id of one",
        ),
        (
            json!({ "subnet": [right] }),
            "is not usable: spec: invalid type",
        ),
        (
            json!({ "subnet": far }),
            "it is in zone us-west-2b, and the node is in us-west-2a",
        ),
        (
            json!({ "subnet": "subnet-0123456789abcdef0" }),
            "EC2 does not list it",
        ),
    ];
    server.put_config("us-west-2a", &wrong[0].0);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    for (n, (spec, words)) in wrong.iter().enumerate() {
        server.put_config("us-west-2a", spec);
        tells(&node, &server, "NoSubnetForENIs", words)?;
        let refused = add_one_within(&node, &format!("waits{n}"), 3)?;
        expect_refusal(&node, &refused, Reason::NoSubnet, &[words])?;
        assert_eq!(node.metric("hawser_open_subnets")?, 0);
    }
    assert_eq!(vpc.calls("CreateNetworkInterface"), 0);
    server.put_config("us-west-2a", &json!({ "subnet": right }));
    let pod = node.add_pod("late")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(1));
    Ok(())
}

/// EC2 refuses each ENI. The ENIs of before keep their groups.
fn a_group_of_another_vpc_is_named_and_stops_only_growth() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let foreign = {
        let mut world = vpc.lab.sim.world();
        let other = world.add_vpc(vec!["10.9.0.0/16".parse()?], Vec::new());
        world.add_group(&other, "pods", "of another VPC")
    };
    let (mut node, server) = telling_node(&vpc, "t3.small")?;
    let subnet = vpc.subnets[1].to_string();
    server.put_config("us-west-2a", &json!({ "subnet": subnet }));
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let before = node.add_pod("before")?;
    let spec = json!({ "subnet": subnet, "securityGroups": [foreign.to_string()] });
    server.put_config("us-west-2a", &spec);
    let mut tries = 0..;
    let refused = || {
        let id = format!("waits{}", tries.next().unwrap_or(0));
        let refused = add_one_within(&node, &id, 3);
        refused.is_ok_and(|refused| refused.error_text().contains(&foreign.to_string()))
    };
    assert!(eventually(PATIENCE, refused), "{}", node.log());
    assert!(ping(node.netns(), None, before.address(), PATIENCE)?.is_some());
    server.put_config("us-west-2a", &json!({ "subnet": subnet }));
    node.add_pod("after").map(drop).map_err(Into::into)
}

fn a_deleted_eni_config_leaves_the_pods_their_network() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let (mut node, server) = telling_node(&vpc, "t3.small")?;
    let spec = json!({ "subnet": vpc.subnets[1].to_string() });
    server.put_config("us-west-2a", &spec);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let pods = [node.add_pod("one")?, node.add_pod("two")?];
    server.delete_config("us-west-2a");
    tells(&node, &server, "NoSubnetForENIs", "does not exist")?;
    for pod in &pods {
        let reached = ping(node.netns(), None, pod.address(), PATIENCE)?;
        assert!(reached.is_some(), "{}", node.log());
    }
    assert_eq!(vpc.enis(&node).get(&1), Some(&1), "{}", node.log());
    server.put_config("us-west-2a", &spec);
    for n in 0..4 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert_eq!(vpc.subnet_of(pod.address()), Some(1));
    }
    Ok(())
}

fn while_the_node_cannot_be_read_no_eni_config_is_used() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("t3.small", &[ZONE])?;
    let spec = |subnet: usize| json!({ "subnet": vpc.subnets[subnet].to_string() });
    server.put_config("us-west-2a", &spec(1));
    server.put_config("default", &spec(2));
    server.forbid_nodes(true);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let words = ["has not told the ENIConfig of the Node", "MY_NODE_NAME"];
    expect_refusal(&node, &add_within(&node, 3)?, Reason::NoSubnet, &words)?;
    assert_eq!(vpc.calls("CreateNetworkInterface"), 0);
    assert!(node.log().contains("nodes is forbidden"), "{}", node.log());
    server.forbid_nodes(false);
    let pod = node.add_pod("late")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(1), "{}", node.log());
    Ok(())
}

fn an_idle_node_calls_ec2_for_nothing() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a')])?;
    let mut ahead = ClockOffset::new(vpc.lab.dir())?;
    let clock = ahead.settings();
    let (mut node, server) = vpc.custom_node("t3.small", &[ZONE, clock[0], clock[1]])?;
    let spec = json!({ "subnet": vpc.subnets[1].to_string() });
    server.put_config("us-west-2a", &spec);
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let pod = node.add_pod("pod")?;
    assert_eq!(vpc.subnet_of(pod.address()), Some(1));
    let calls = vpc.calls_of_two_idle_hours(&node, &mut ahead)?;
    assert_eq!(calls, Vec::<String>::new(), "{}", node.log());
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
    let reached = ping(&new.netns, None, old.address(), PATIENCE)?;
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
