//! Interfaces of the instance that other programs or people created.

use std::{io, time::Duration};

use lab::{
    Lab,
    node::{Node, inspect::inspect},
    subnets::ByHand,
    traffic::ping::ping,
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::{
    SimConfig,
    ids::{EniId, SubnetId},
    world::{model::InterfaceType, request::Pick},
};

use crate::suite::{Outcome, trials};

trials!(
    case_17_tags_arrive_as_given,
    case_40_an_eni_of_the_user_is_left_alone_or_kept,
    case_42_an_eni_of_another_vpc_gives_no_address_to_pods,
    an_eni_that_the_host_uses_is_adopted_only_when_the_host_drops_it,
    interfaces_of_other_network_cards_are_left_alone,
    a_rule_of_the_operating_system_for_an_eni_is_left_alone,
);

const LIMIT: Duration = Duration::from_secs(60);

const NO_MANAGE: &str = "node.k8s.amazonaws.com/no_manage";

fn subnet(lab: &Lab) -> io::Result<SubnetId> {
    let world = lab.sim.world();
    let first = world.subnets().next().map(|subnet| subnet.id.clone());
    first.ok_or_else(|| io::Error::other("no subnet"))
}

/// What a user attaches in the console, with three addresses besides its own.
fn attach(lab: &Lab, node: &Node, subnet: SubnetId, tags: &[(&str, &str)]) -> io::Result<EniId> {
    let tags = tags
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let eni = ByHand {
        description: "storage network".to_owned(),
        ipv4: Pick::Count(3),
        tags: tags.collect(),
        ..ByHand::plain(subnet)
    };
    lab.attach(node, eni)
}

/// Whether the pool manages this ENI, and whether it knows that it does not.
fn standing(node: &Node, eni: &EniId) -> io::Result<(bool, bool)> {
    let seen = inspect(&node.socket())?;
    let managed = seen.enis.iter().any(|known| known.id == eni.0);
    Ok((managed, seen.unmanaged.contains(&eni.0)))
}

fn becomes_managed(node: &Node, eni: &EniId) -> Outcome {
    let managed = || standing(node, eni).is_ok_and(|seen| seen == (true, false));
    assert!(eventually(LIMIT, managed), "{}", node.log());
    Ok(())
}

fn is_attached(lab: &Lab, eni: &EniId) -> bool {
    let world = lab.sim.world();
    world
        .interface(eni)
        .is_some_and(|eni| eni.attachment.is_some())
}

fn case_17_tags_arrive_as_given() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let tags = json!({"team@work": "a b", "empty": "", "größe": "süß", "aws:owner": "x"});
    let settings = [
        ("ADDITIONAL_ENI_TAGS", &*tags.to_string()),
        ("CLUSTER_NAME", "prod"),
        ("WARM_ENI_TARGET", "1"),
    ];
    let node = lab.node("m5.large", &settings)?;
    node.add_pod("a")?;
    let made = || {
        let world = lab.sim.world();
        let mut made = world
            .interfaces()
            .filter(|eni| eni.tags.contains_key("team@work"));
        made.next().map(|eni| eni.tags.clone())
    };
    assert!(eventually(LIMIT, || made().is_some()), "{}", node.log());
    let made = made().unwrap_or_default();
    for (key, value) in [("team@work", "a b"), ("empty", ""), ("größe", "süß")] {
        assert_eq!(made.get(key).map(String::as_str), Some(value), "{made:?}");
    }
    assert!(!made.contains_key("aws:owner"));
    let log = node.log();
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    let told = |line: &Value| {
        line["setting"]
            .as_str()
            .is_some_and(|s| s.contains("aws:owner"))
    };
    assert_eq!(lines.filter(told).count(), 1, "{log}");
    Ok(())
}

fn case_40_an_eni_of_the_user_is_left_alone_or_kept() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];
    let mut node = lab.node("m5.large", &settings)?;
    let own = attach(&lab, &node, subnet(&lab)?, &[(NO_MANAGE, "true")])?;
    node.stop_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let left = || standing(&node, &own).is_ok_and(|seen| seen == (false, true));
    assert!(eventually(LIMIT, left), "{}", node.log());
    assert!(is_attached(&lab, &own));

    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("m5.large", &settings)?;
    let adopted = attach(&lab, &node, subnet(&lab)?, &[("team", "storage")])?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    becomes_managed(&node, &adopted)?;
    // Its free addresses are given back, and the log says whose they may have been.
    let removed = || {
        let log = node.log();
        let line = log
            .lines()
            .find(|line| line.contains("removing something of an ENI"));
        line.is_some_and(|line| line.contains("storage network") && line.contains("team=storage"))
    };
    assert!(eventually(LIMIT, removed), "{}", node.log());
    assert!(is_attached(&lab, &adopted));
    Ok(())
}

/// An address in another VPC leads nowhere from here.
fn case_42_an_eni_of_another_vpc_gives_no_address_to_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("t3.small", &[("WARM_IP_TARGET", "1")])?;
    let elsewhere = {
        let mut world = lab.sim.world();
        let zone = world
            .subnets()
            .next()
            .and_then(|subnet| subnet.zone.chars().last());
        let zone = zone.ok_or("no subnet")?;
        let vpc = world.add_vpc(vec!["10.77.0.0/16".parse()?], Vec::new());
        world.add_subnet(&vpc, "10.77.1.0/24".parse()?, None, zone)
    };
    let eni = attach(&lab, &node, elsewhere, &[])?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let left = || standing(&node, &eni).is_ok_and(|seen| seen == (false, true));
    assert!(eventually(LIMIT, left), "{}", node.log());
    for n in 0..6 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        assert!(
            !pod.address().to_string().starts_with("10.77."),
            "{}",
            node.log()
        );
    }
    assert!(is_attached(&lab, &eni));
    Ok(())
}

/// A storage client that uses its own interface.
fn an_eni_that_the_host_uses_is_adopted_only_when_the_host_drops_it() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("m5.large", &[("WARM_IP_TARGET", "1")])?;
    let eni = attach(&lab, &node, subnet(&lab)?, &[])?;
    let own = lab
        .sim
        .world()
        .interface(&eni)
        .and_then(|eni| eni.primary());
    let own = own.ok_or("no address")?;
    node.shell(&format!(
        "ip link set eth1 up; ip addr add {own}/24 dev eth1"
    ))?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let left = || standing(&node, &eni).is_ok_and(|seen| seen == (false, true));
    assert!(eventually(LIMIT, left), "{}", node.log());
    let reason = format!("uses its address {own} itself");
    assert!(node.log().contains(&reason), "{}", node.log());
    assert!(
        node.shell("ip -4 addr show dev eth1")?
            .contains(&own.to_string())
    );

    node.shell(&format!("ip addr del {own}/24 dev eth1"))?;
    becomes_managed(&node, &eni)?;

    // The pool has it now. A DHCP client that comes later, and a restart, change nothing.
    node.stop_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    becomes_managed(&node, &eni)?;
    std::fs::remove_file(node.state_file())?;
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    becomes_managed(&node, &eni)
}

/// What the operating system made for an interface that it found at boot, by the rules of EKS's images.
fn of_the_system(node: &Node, table: u32) -> io::Result<String> {
    node.shell(&format!(
        "ip rule show pref 32765 | grep -v 'proto 107'; ip route show table {table} | grep blackhole"
    ))
}

fn interfaces_of_other_network_cards_are_left_alone() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.bare_node("p4d.24xlarge", &[("WARM_IP_TARGET", "1")])?;
    let mut theirs = Vec::new();
    for (card, interface_type, ipv4) in [
        (1, InterfaceType::Interface, Pick::Count(3)),
        (2, InterfaceType::EfaOnly, Pick::Nothing),
    ] {
        let eni = ByHand {
            interface_type,
            card,
            ipv4,
            ..ByHand::plain(subnet(&lab)?)
        };
        theirs.push(lab.attach(&node, eni)?);
    }
    node.shell(
        "ip rule add from 10.0.0.77 lookup 10101 pref 32765; ip route add blackhole default table 10101",
    )?;
    let right = of_the_system(&node, 10101)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let pod = node.add_pod("pod")?;
    for restart in [false, true] {
        if restart {
            node.kill_daemon()?;
            node.start_daemon(&lab.sim.ec2_endpoint())?;
        }
        for eni in &theirs {
            let left = || standing(&node, eni).is_ok_and(|seen| seen == (false, true));
            assert!(eventually(LIMIT, left), "{}", node.log());
        }
    }
    node.delete_pod(pod)?;
    assert_eq!(of_the_system(&node, 10101)?, right);
    assert!(theirs.iter().all(|eni| is_attached(&lab, eni)));
    Ok(())
}

fn a_rule_of_the_operating_system_for_an_eni_is_left_alone() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let settings = [("WARM_IP_TARGET", "1"), ("IP_COOLDOWN_PERIOD", "1")];
    let mut node = lab.bare_node("t3.small", &settings)?;
    let eni = attach(&lab, &node, subnet(&lab)?, &[])?;
    let address = lab
        .sim
        .world()
        .interface(&eni)
        .map(|eni| eni.ipv4[0])
        .ok_or("no ENI")?;
    node.shell(&format!(
        "ip rule add from {address} lookup 10001 pref 32765; ip route add blackhole default metric 513 table 10001"
    ))?;
    let right = of_the_system(&node, 10001)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    becomes_managed(&node, &eni)?;
    let pods = (0..4).map(|n| node.add_pod(&format!("pod{n}")));
    let pods = pods.collect::<io::Result<Vec<_>>>()?;
    let reached = ping(&pods[3].netns, None, node.instance.address, LIMIT)?;
    assert!(reached.is_some(), "{}", node.log());
    node.kill_daemon()?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    for pod in pods {
        node.delete_pod(pod)?;
    }
    assert_eq!(of_the_system(&node, 10001)?, right);
    Ok(())
}
