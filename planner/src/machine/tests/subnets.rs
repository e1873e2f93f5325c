//! In which subnets ENIs are created, what one subnet's trouble does to the others, and how often EC2 is asked.

use std::time::Duration;

use super::world::{Fault, World};
use crate::{
    Class, Command, Config, EniClass, Event, Refusal, Rest,
    gate::Action,
    placement::{Candidate, Listed, Selector},
    scope::subnets::ROLE_TAG,
};

fn config() -> Config {
    Config {
        warm_ip_target: Some(1),
        cooldown: Duration::ZERO,
        ..Config::default()
    }
}

fn by_tags(instance: &str, config: Config) -> World {
    World::placed(instance, config, Ok(EniClass::by_tags(None)))
}

fn listed(subnets: &[(&str, u32)]) -> EniClass {
    let listed = subnets.iter().map(|(subnet, weight)| Listed {
        subnet: (*subnet).into(),
        weight: *weight,
    });
    EniClass {
        name: "ENIConfig a".into(),
        subnets: Selector::Listed(listed.collect()),
        security_groups: Some(vec!["sg-7".into()]),
        primary_serves: false,
    }
}

fn lists(world: &World) -> usize {
    let lists = world
        .log
        .iter()
        .filter(|c| matches!(c, Command::DescribeSubnets { .. }));
    lists.count()
}

/// Three of unequal size, one exhausted, one fragmented, one tagged 0, one in another zone, one without a tag.
pub(super) fn zone(instance: &str, config: Config) -> World {
    let mut world = by_tags(instance, config);
    world.left = 60;
    world.plot("subnet-large", 200);
    world.plot("subnet-small", 30);
    world.plot("subnet-full", 0).listed.free = 0;
    world.plot("subnet-fragmented", 100).fragmented = true;
    let zero = world.plot("subnet-zero", 1000);
    zero.listed.tags.insert(ROLE_TAG.into(), "0".into());
    world.plot("subnet-far", 1000).listed.zone = Some("b".into());
    world.plot("subnet-untagged", 1000).listed.tags.clear();
    world
}

fn fill(world: &mut World, pods: u32) {
    for n in 0..pods {
        world.add(n);
        world.run(15);
    }
}

#[test]
fn new_enis_are_in_the_subnet_with_the_most_free_addresses() {
    let mut world = zone("m5.xlarge", config());
    world.start();
    fill(&mut world, 50);
    assert_eq!(world.live.len(), 50);
    assert_eq!(world.created_in(), ["subnet-large"; 3]);
    assert_eq!(lists(&world), 1, "one list serves all of them");
}

#[test]
fn the_next_subnet_is_the_next_largest() {
    let mut world = zone("m5.4xlarge", config());
    world.plots.get_mut(&"subnet-large".into()).unwrap().left = 75;
    world.plots.remove(&"subnet-fragmented".into());
    world.start();
    fill(&mut world, 100);
    assert_eq!(world.live.len(), 100);
    assert_eq!(
        world.created_in(),
        ["subnet-large", "subnet-large", "subnet-1"]
    );
}

#[test]
fn a_subnet_with_the_routes_of_the_node_is_preferred() {
    let mut world = zone("m5.large", config());
    let table = |candidate: &mut Candidate, id: &str| candidate.route_table = Some(id.into());
    table(&mut world.home, "rtb-1");
    world.home.tags.insert(ROLE_TAG.into(), "0".into());
    for (id, routes) in [
        ("large", "rtb-2"),
        ("fragmented", "rtb-2"),
        ("small", "rtb-1"),
    ] {
        let plot = world.plots.get_mut(&format!("subnet-{id}").as_str().into());
        table(&mut plot.unwrap().listed, routes);
    }
    world.start();
    fill(&mut world, 1);
    assert_eq!(world.created_in(), ["subnet-small"]);
}

#[test]
fn an_exhausted_subnet_rests_and_the_pool_grows_in_another() {
    let mut world = zone("m5.large", config());
    // EC2's count is old: there is nothing left.
    world.start();
    world.plots.get_mut(&"subnet-large".into()).unwrap().left = 0;
    fill(&mut world, 12);
    assert_eq!(world.live.len(), 12);
    assert_eq!(world.created_in(), ["subnet-large", "subnet-fragmented"]);
    assert!(world.refused.is_empty(), "{:?}", world.refused);
}

#[test]
fn a_denied_subnet_rests_and_the_pool_grows_in_another() {
    let mut world = zone("m5.large", config());
    world.plots.get_mut(&"subnet-large".into()).unwrap().refuses = Some(Class::Denied {
        action: "ec2:CreateNetworkInterface".into(),
        why: None,
    });
    world.start();
    fill(&mut world, 12);
    assert_eq!(world.live.len(), 12);
    assert_eq!(world.created_in(), ["subnet-large", "subnet-fragmented"]);
    let snapshot = world.planner.snapshot(world.now);
    assert!(snapshot.denied.is_empty(), "nobody waits because of it");
    assert!(snapshot.refused.iter().any(|view| !view.stops_growth));
}

#[test]
fn what_concerns_the_account_is_not_tried_in_every_subnet() {
    let mut world = zone("m5.large", config());
    for plot in world.plots.values_mut() {
        plot.refuses = Some(Class::Refused(Rest::Long));
    }
    world.start();
    fill(&mut world, 10);
    let others = world
        .created_in()
        .into_iter()
        .filter(|subnet| *subnet != "subnet-large");
    assert_eq!(others.count(), 0, "a quota is the same everywhere");
}

#[test]
fn prefixes_come_from_a_subnet_that_has_blocks() {
    let prefixes = Config {
        prefix_delegation: true,
        warm_prefix_target: Some(1),
        cooldown: Duration::ZERO,
        ..Config::default()
    };
    let mut world = zone("t3.small", prefixes);
    world.left = 0;
    world.plots.get_mut(&"subnet-large".into()).unwrap().left = 64;
    world.start();
    fill(&mut world, 20);
    assert_eq!(world.created_in(), ["subnet-fragmented", "subnet-large"]);
    assert!(world.live.len() >= 20 && world.planner.totals().prefixes >= 2);
}

#[test]
fn without_any_address_the_refusal_names_a_subnet_and_how_many_others_there_are() {
    let mut world = zone("m5.large", config());
    world.left = 0;
    for plot in world.plots.values_mut() {
        plot.left = 0;
    }
    world.start();
    let ticket = world.add_within(1, 60);
    world.run(70);
    let Refusal::Exhausted { others, .. } = &world.refused[&ticket] else {
        panic!("{:?}", world.refused[&ticket]);
    };
    assert_eq!(
        *others, 4,
        "the primary ENI's and three that are tagged for pods besides the first"
    );
    world.plots.get_mut(&"subnet-small".into()).unwrap().left = 30;
    world.add(2);
    world.run(30);
    assert_eq!(world.live.len(), 1, "back as soon as one has room");
}

#[test]
fn a_node_without_a_usable_subnet_says_why() {
    let mut world = zone("m5.large", config());
    world.home.tags.insert(ROLE_TAG.into(), "0".into());
    world
        .plots
        .retain(|id, _| ["subnet-far", "subnet-untagged"].contains(&id.0.as_str()));
    world.start();
    let ticket = world.add_within(1, 60);
    world.run(70);
    let Refusal::NoSubnet(none) = &world.refused[&ticket] else {
        panic!("{:?}", world.refused[&ticket]);
    };
    for text in [
        "subnet-1: its tag",
        "subnet-far: it is in zone b",
        "subnet-untagged: it does not",
    ] {
        assert!(none.why.contains(text), "{none}");
    }
    assert!(none.remedy.contains("kubernetes.io/role/cni=1"));
    let from = lists(&world);
    world
        .plots
        .get_mut(&"subnet-untagged".into())
        .unwrap()
        .listed
        .tags
        .insert(ROLE_TAG.into(), "1".into());
    let late = world.add_within(2, 900);
    world.run(600);
    assert!(
        world.granted.contains_key(&late),
        "a tag is noticed while pods wait"
    );
    assert!(
        lists(&world) - from <= 3,
        "and EC2 is not asked all the time"
    );
}

#[test]
fn without_discovery_ec2_is_never_asked_about_subnets() {
    let mut world = World::new("m5.large", config());
    fill(&mut world, 20);
    world.run(100_000);
    assert_eq!(lists(&world), 0);
}

#[test]
fn an_idle_node_with_discovery_asks_at_most_once_an_hour() {
    let mut world = zone("m5.large", config());
    world.start();
    fill(&mut world, 3);
    let from = world.log.len();
    let mut before = lists(&world);
    for _ in 0..24 {
        world.run(3600);
        assert!(lists(&world) <= before + 1);
        before = lists(&world);
    }
    assert!(lists(&world) >= 20, "{} in a day", lists(&world));
    assert_eq!(world.calls_since(from).len(), lists(&world) - 1);
}

/// I9: Create, Attach and the attribute for the end of the instance, as without discovery.
#[test]
fn discovery_adds_no_call_to_an_eni() {
    let upstream = Config {
        cooldown: Duration::ZERO,
        ..Config::upstream()
    };
    let mut world = zone("m5.xlarge", upstream);
    world.start();
    world.run(60);
    assert_eq!(lists(&world), 1);
    let (from, before) = (world.log.len(), world.created_in().len());
    fill(&mut world, 42);
    world.run(60);
    let enis = world.created_in().len() - before;
    assert_eq!(world.live.len(), 42);
    assert!(enis > 0);
    assert_eq!(world.calls_since(from).len(), 3 * enis);
}

#[test]
fn a_denied_list_leaves_the_subnet_of_the_primary_eni() {
    let mut world = zone("m5.large", config());
    let denied = Class::Denied {
        action: "ec2:DescribeSubnets".into(),
        why: None,
    };
    world.fault(Action::Subnets, vec![Fault::Refuse(denied); 50]);
    world.start();
    fill(&mut world, 12);
    assert_eq!(world.live.len(), 12);
    assert_eq!(world.created_in(), ["subnet-1"]);
    let before = lists(&world);
    world.run(24 * 3600);
    assert!(lists(&world) - before <= 24, "{}", lists(&world));
    let view = world.planner.snapshot(world.now).places;
    assert!(view.unlisted.is_some_and(|why| why.contains("as told")));
}

#[test]
fn a_lost_list_delays_growth_once() {
    let mut world = zone("m5.large", config());
    world.fault(Action::Subnets, [Fault::Silence]);
    world.start();
    world.add(1);
    world.run(40);
    assert_eq!(world.live.len(), 1);
}

#[test]
fn subnets_of_an_eni_config_are_used_by_their_weight() {
    let class = listed(&[("subnet-small", 2), ("subnet-large", 0)]);
    let mut world = World::placed("m5.xlarge", config(), Ok(class));
    world.plot("subnet-large", 200);
    world.plot("subnet-small", 16);
    world.start();
    fill(&mut world, 40);
    assert_eq!(world.live.len(), 40);
    let made = world.created_in();
    assert_eq!(made[0], "subnet-small");
    assert_eq!(made[made.len() - 1], "subnet-large");
    let large = made.iter().filter(|subnet| **subnet == "subnet-large");
    assert_eq!(large.count(), 2, "no ENI for the rest of the preferred one");
    assert_eq!(lists(&world), 1);
}

#[test]
fn one_subnet_of_an_eni_config_costs_one_list_and_nothing_later() {
    let mut world = World::placed("m5.xlarge", config(), Ok(listed(&[("subnet-2", 0)])));
    world.plot("subnet-2", 200);
    world.start();
    fill(&mut world, 40);
    world.run(30_000);
    assert_eq!((world.live.len(), lists(&world)), (40, 1));
}

#[test]
fn a_subnet_of_another_zone_is_named() {
    let mut world = World::placed("m5.large", config(), Ok(listed(&[("subnet-2", 0)])));
    world.plot("subnet-2", 200).listed.zone = Some("b".into());
    world.start();
    let ticket = world.add_within(1, 60);
    world.run(70);
    let Refusal::NoSubnet(none) = &world.refused[&ticket] else {
        panic!("{:?}", world.refused[&ticket]);
    };
    assert!(
        none.why.contains("ENIConfig a") && none.why.contains("it is in zone b"),
        "{none}"
    );
    assert!(world.created_in().is_empty());
}

#[test]
fn without_an_eni_config_the_pods_wait_and_are_told_why() {
    let none = crate::placement::NoClass {
        why: "the ENIConfig \"a\" does not exist".into(),
        remedy: "create it".into(),
    };
    let mut world = World::placed("m5.large", config(), Err(none.clone()));
    world.plot("subnet-2", 200);
    world.start();
    let ticket = world.add_within(1, 60);
    world.run(70);
    assert_eq!(world.refused.get(&ticket), Some(&Refusal::NoSubnet(none)));
    assert!(world.created_in().is_empty());
    let late = world.add_within(2, 60);
    world.send(Event::Class(Ok(listed(&[("subnet-2", 0)]))));
    world.run(30);
    assert!(world.granted.contains_key(&late));
}
