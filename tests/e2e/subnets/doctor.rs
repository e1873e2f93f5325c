//! What `ipamd doctor` says about tags and ENIConfigs, each finding provoked.

use lab::node::Node;
use serde_json::{Value, json};
use vpc_sim::{Action, Fault};

use super::vpc::Vpc;
use crate::suite::{Outcome, trials};

trials!(
    a_wrong_eni_config_is_found,
    subnets_that_do_not_serve_pods_are_found,
);

/// What the check of the subnets of pods finds.
fn findings(vpc: &Vpc, node: &Node) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let told = node.ask(&vpc.lab.sim.ec2_endpoint(), &["doctor", "--output", "json"])?;
    let report: Value = serde_json::from_slice(&told.stdout)?;
    let checks = report["checks"].as_array().into_iter().flatten();
    let own = checks.filter(|check| check["name"] == "pod subnets");
    let found = own.flat_map(|check| check["findings"].as_array().into_iter().flatten());
    let text = |finding: &Value| {
        let part = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        format!("{}: {}", part("what"), part("evidence"))
    };
    Ok(found.map(text).collect())
}

fn expect(vpc: &Vpc, node: &Node, what: &str) -> Outcome {
    let found = findings(vpc, node)?;
    assert!(
        found.iter().any(|text| text.contains(what)),
        "{what} is not in {found:#?}"
    );
    Ok(())
}

fn subnets_that_do_not_serve_pods_are_found() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/28", 'a')])?;
    let node = vpc.lab.node("m5.large", &[("WARM_IP_TARGET", "1")])?;
    assert_eq!(findings(&vpc, &node)?, Vec::<String>::new());
    vpc.role(1, "1")?;
    vpc.tag(1, "cni.networking.k8s.aws/cluster/other", "shared")?;
    expect(
        &vpc,
        &node,
        "is tagged for some clusters: CLUSTER_NAME is not set",
    )?;
    {
        let mut world = vpc.lab.sim.world();
        let of = world.vpcs().next().ok_or("no VPC")?.id.clone();
        let table = world.add_route_table(&of, Vec::new());
        assert!(world.associate_route_table(&table, &vpc.subnets[1]));
    }
    expect(&vpc, &node, "has other routes than the node")?;
    let denied = Fault::error(
        Action::DescribeRouteTables,
        u32::MAX,
        "UnauthorizedOperation",
    );
    vpc.lab.sim.faults().push(denied);
    let found = findings(&vpc, &node)?;
    assert!(
        !found.iter().any(|text| text.contains("routes")),
        "unknown is no finding: {found:#?}"
    );
    vpc.role(0, "0")?;
    vpc.role(1, "0")?;
    expect(&vpc, &node, "no subnet may get new ENIs")?;
    vpc.role(2, "1")?;
    vpc.lab.sim.world().crowd(&vpc.subnets[2], 0);
    expect(&vpc, &node, "no subnet of pods has a free address")?;
    let denied = Fault::error(Action::DescribeSubnets, u32::MAX, "UnauthorizedOperation");
    vpc.lab.sim.faults().push(denied);
    expect(&vpc, &node, "EC2 does not list subnets")
}

fn a_wrong_eni_config_is_found() -> Outcome {
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'b')])?;
    let zone = ("ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone");
    let (mut node, server) = vpc.custom_node("m5.large", &[zone])?;
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    expect(
        &vpc,
        &node,
        "the ENIConfig \"us-west-2a\" of this node does not exist",
    )?;
    let put = |spec: Value| server.put_config("us-west-2a", &spec);
    put(json!({ "subnet": "10.0.0.0/24" }));
    expect(&vpc, &node, "which is not the id of one")?;
    put(json!({ "subnet": vpc.subnets[2].to_string() }));
    expect(
        &vpc,
        &node,
        "is in another zone: it is in us-west-2b, and the node is in us-west-2a",
    )?;
    put(json!({ "subnet": "subnet-0000000000000000f" }));
    expect(&vpc, &node, "does not exist: EC2 does not list it")?;
    let strange = {
        let mut world = vpc.lab.sim.world();
        let other = world.add_vpc(vec!["10.99.0.0/16".parse()?], Vec::new());
        world.add_group(&other, "far", "in another VPC")
    };
    put(json!({ "subnet": vpc.subnets[1].to_string(), "securityGroups": [strange.to_string()] }));
    expect(&vpc, &node, "is not a group of the node's VPC")?;
    put(json!({ "subnet": vpc.subnets[1].to_string() }));
    assert_eq!(findings(&vpc, &node)?, Vec::<String>::new());
    drop(server);
    expect(&vpc, &node, "the node's ENIConfig cannot be read")
}
