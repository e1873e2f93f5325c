//! ENIs that get no more pods: their pods stay, and they leave with the last one.

use std::time::Duration;

use super::world::{World, sandbox};
use crate::{
    Command, Config, EniClass, Event, Refusal,
    placement::{Closed, Listed, NoClass, Selector},
    scope::subnets::ROLE_TAG,
    snapshot::EniView,
};

fn config() -> Config {
    Config {
        warm_ip_target: Some(1),
        cooldown: Duration::ZERO,
        ..Config::default()
    }
}

fn class(subnet: &str, group: Option<&str>) -> EniClass {
    EniClass {
        name: "ENIConfig a".into(),
        subnets: Selector::Listed(vec![Listed {
            subnet: subnet.into(),
            weight: 0,
        }]),
        security_groups: group.map(|group| vec![group.into()]),
        primary_serves: false,
    }
}

fn custom(instance: &str) -> World {
    let mut world = World::placed(instance, config(), Ok(class("subnet-2", Some("sg-7"))));
    world.plot("subnet-2", 500);
    world.plot("subnet-3", 500);
    world.start();
    world
}

fn fill(world: &mut World, pods: std::ops::Range<u32>) {
    for n in pods {
        world.add(n);
        world.run(15);
    }
}

fn enis(world: &World) -> Vec<EniView> {
    world.planner.snapshot(world.now).enis
}

fn closed(world: &World, why: Closed) -> usize {
    enis(world)
        .iter()
        .filter(|eni| eni.closed == Some(why))
        .count()
}

/// The subnets of the attached secondary ENIs.
fn attached(world: &World) -> Vec<String> {
    let enis = world.enis.values().map(|eni| &eni.observed);
    let secondary = enis.filter(|eni| eni.attached.as_ref().is_some_and(|at| at.device > 0));
    let mut subnets: Vec<_> = secondary.map(|eni| eni.subnet.0.clone()).collect();
    subnets.sort();
    subnets
}

#[test]
fn in_custom_networking_the_primary_eni_serves_no_pods() {
    let mut world = custom("m5.large");
    fill(&mut world, 0..18);
    assert_eq!(world.live.len(), 18);
    assert_eq!(attached(&world), ["subnet-2", "subnet-2"]);
    let limit = world.planner.pod_limit();
    assert_eq!(limit.addresses, 18, "{}", limit.derivation);
    assert!(limit.derivation.contains("the primary one serves no pods"));
    let beyond = world.add(18);
    assert!(matches!(
        world.refused[&beyond],
        Refusal::PodLimit { limit: 18, .. }
    ));
    let primary = enis(&world).into_iter().find(|eni| eni.primary).unwrap();
    assert_eq!(
        (primary.closed, primary.addresses.len()),
        (Some(Closed::Primary), 0)
    );
}

/// Somebody has detached it. Two lists must agree on that before another one takes its place, and until then a pod waits.
#[test]
fn a_pod_waits_while_an_eni_that_gets_no_more_pods_may_be_gone() {
    let cap = Config {
        max_eni: Some(2),
        ..config()
    };
    let first = class("subnet-2", Some("sg-7"));
    let mut world = World::placed("m5.large", cap, Ok(first));
    world.plot("subnet-2", 500);
    world.plot("subnet-3", 500);
    world.start();
    fill(&mut world, 0..1);
    let other = class("subnet-3", Some("sg-7"));
    world.send(Event::Class(Ok(other)));
    world.run(5);
    assert_eq!(closed(&world, Closed::OtherClass), 1);
    let mut secondary = world.enis.values_mut().map(|eni| &mut eni.observed);
    let lost = secondary
        .find(|eni| eni.subnet == "subnet-2".into())
        .unwrap();
    lost.attached = None;
    let list = world.listing();
    world.send(Event::Inventory(list));
    let ticket = world.add(1);
    world.run(1);
    assert!(!world.refused.contains_key(&ticket), "{:?}", world.refused);
    world.run(58);
    assert!(world.granted.contains_key(&ticket), "{:?}", world.refused);
    assert_eq!(attached(&world), ["subnet-3"]);
}

#[test]
fn pods_of_the_primary_eni_stay_when_custom_networking_is_enabled() {
    let mut world = World::new("m5.large", config());
    fill(&mut world, 0..4);
    world.plot("subnet-2", 500);
    let known = world.listing();
    let pods: Vec<_> = world
        .live
        .iter()
        .map(|(one, at)| (one.clone(), *at))
        .collect();
    world.planner.class = Ok(class("subnet-2", None));
    world.restart("m5.large", config());
    let eni = known[0].eni.clone();
    world.send(Event::Restore(crate::Restored {
        assigned: pods
            .into_iter()
            .map(|(one, at)| (one, crate::Pod::default(), at, eni.clone()))
            .collect(),
        enis: known,
        ..crate::Restored::default()
    }));
    world.start();
    fill(&mut world, 10..12);
    assert_eq!(world.live.len(), 6);
    assert_eq!(attached(&world), ["subnet-2"]);
    world.run(120);
    let primary = &world.enis[&eni].observed;
    assert_eq!(
        primary.addresses.len(),
        4,
        "the free one is given back, the pods keep theirs"
    );
    for n in 0..4 {
        world.left(n);
    }
    world.run(120);
    assert!(world.enis[&eni].observed.addresses.is_empty());
}

#[test]
fn enis_of_the_last_eni_config_leave_with_their_pods() {
    let mut world = custom("m5.xlarge");
    fill(&mut world, 0..20);
    assert_eq!(attached(&world), ["subnet-2", "subnet-2"]);
    world.send(Event::Class(Ok(class("subnet-3", Some("sg-7")))));
    assert_eq!(closed(&world, Closed::OtherClass), 2);
    fill(&mut world, 20..22);
    assert_eq!(world.live.len(), 22);
    assert_eq!(attached(&world), ["subnet-2", "subnet-2", "subnet-3"]);
    let from = world.log.len();
    world.run(3600);
    let detaches = world.log[from..]
        .iter()
        .filter(|c| matches!(c, Command::DetachEni { .. }));
    assert_eq!(detaches.count(), 0, "no pod is interrupted");
    for n in 0..20 {
        world.left(n);
    }
    world.run(300);
    assert_eq!(attached(&world), ["subnet-3"]);
    assert_eq!(world.live.len(), 2);
}

#[test]
fn other_security_groups_are_another_class_and_inherited_ones_are_not() {
    let mut world = custom("m5.large");
    fill(&mut world, 0..2);
    world.send(Event::Class(Ok(class("subnet-2", None))));
    assert_eq!(closed(&world, Closed::OtherClass), 0);
    world.send(Event::Class(Ok(class("subnet-2", Some("sg-8")))));
    assert_eq!(closed(&world, Closed::OtherClass), 1);
    fill(&mut world, 2..3);
    let groups: Vec<_> = world
        .enis
        .values()
        .map(|eni| eni.observed.security_groups.clone())
        .collect();
    assert!(groups.contains(&vec!["sg-8".into()]), "{groups:?}");
}

#[test]
fn a_mistake_that_is_undone_at_once_costs_nothing() {
    let mut world = custom("m5.large");
    fill(&mut world, 0..1);
    world.left(0);
    world.run(120);
    let before = world.log.len();
    world.send(Event::Class(Ok(class("subnet-3", Some("sg-7")))));
    world.send(Event::Class(Ok(class("subnet-2", Some("sg-7")))));
    world.run(600);
    let given = |c: &&Command| matches!(c, Command::DetachEni { .. } | Command::Unassign { .. });
    assert_eq!(world.log[before..].iter().filter(given).count(), 0);
}

#[test]
fn a_lost_eni_config_stops_growth_and_nothing_else() {
    let mut world = custom("m5.large");
    fill(&mut world, 0..8);
    let gone = NoClass {
        why: "it is gone".into(),
        remedy: String::new(),
    };
    world.send(Event::Class(Err(gone)));
    fill(&mut world, 8..9);
    assert_eq!(world.live.len(), 9, "existing ENIs go on");
    let ticket = world.add_within(9, 30);
    world.run(40);
    assert!(matches!(&world.refused[&ticket], Refusal::NoSubnet(none) if none.why == "it is gone"));
    assert_eq!(closed(&world, Closed::OtherClass), 0);
}

fn discovery() -> World {
    let mut world = World::placed("m5.large", config(), Ok(EniClass::by_tags(None)));
    world.left = 100;
    world.plot("subnet-2", 500);
    world.start();
    world
}

/// Until the next list.
fn relist(world: &mut World) {
    world.run(4400);
}

#[test]
fn a_tag_on_the_primary_subnet_excludes_the_primary_eni() {
    let mut world = discovery();
    fill(&mut world, 0..4);
    assert!(attached(&world).is_empty());
    world.home.tags.insert(ROLE_TAG.into(), "0".into());
    relist(&mut world);
    assert_eq!(closed(&world, Closed::Excluded), 1);
    assert_eq!(world.planner.pod_limit().addresses, 18);
    fill(&mut world, 4..6);
    assert_eq!(
        (world.live.len(), attached(&world)),
        (6, vec!["subnet-2".to_owned()])
    );
    // The pods of the primary ENI do not count towards the limit of the others.
    fill(&mut world, 6..22);
    assert_eq!(world.live.len(), 22);
    world.home.tags.clear();
    relist(&mut world);
    assert_eq!(closed(&world, Closed::Excluded), 0);
    assert_eq!(world.planner.pod_limit().addresses, 27);
}

#[test]
fn a_primary_eni_that_is_excluded_at_start_gets_no_address() {
    let mut world = World::placed("m5.large", config(), Ok(EniClass::by_tags(None)));
    world.home.tags.insert(ROLE_TAG.into(), "0".into());
    world.plot("subnet-2", 500);
    world.start();
    fill(&mut world, 0..3);
    assert_eq!(
        (world.live.len(), attached(&world)),
        (3, vec!["subnet-2".to_owned()])
    );
    let primary = enis(&world).into_iter().find(|eni| eni.primary).unwrap();
    assert!(primary.addresses.is_empty());
}

#[test]
fn a_tag_on_another_subnet_lets_its_enis_leave_with_their_pods() {
    let mut world = discovery();
    fill(&mut world, 0..12);
    assert_eq!(attached(&world), ["subnet-2"]);
    let tags = &mut world.plots.get_mut(&"subnet-2".into()).unwrap().listed.tags;
    tags.insert(ROLE_TAG.into(), "0".into());
    relist(&mut world);
    assert_eq!(closed(&world, Closed::Excluded), 1);
    assert_eq!(world.live.len(), 12);
    fill(&mut world, 12..13);
    assert_eq!(attached(&world), ["subnet-1", "subnet-2"]);
    let moved: Vec<u32> = (0..13)
        .filter(|n| world.live.contains_key(&sandbox(*n)))
        .collect();
    assert_eq!(moved.len(), 13);
    for n in 0..12 {
        world.left(n);
    }
    world.run(300);
    assert_eq!(attached(&world), ["subnet-1"]);
}

/// The security groups of the secondary ENIs.
fn groups(world: &World) -> Vec<String> {
    let enis = world.enis.values().map(|eni| &eni.observed);
    let secondary = enis.filter(|eni| eni.attached.as_ref().is_some_and(|at| at.device > 0));
    let groups = secondary.flat_map(|eni| &eni.security_groups);
    groups.map(|group| group.0.clone()).collect()
}

fn regroup_primary(world: &mut World, group: &str) {
    for eni in world.enis.values_mut() {
        if eni
            .observed
            .attached
            .as_ref()
            .is_some_and(|at| at.device == 0)
        {
            eni.observed.security_groups = vec![group.into()];
        }
    }
    let list = world.listing();
    world.send(Event::Inventory(list));
    world.run(60);
}

#[test]
fn inherited_security_groups_follow_those_of_the_primary_eni() {
    let mut world = World::new("m5.large", config());
    fill(&mut world, 0..12);
    regroup_primary(&mut world, "sg-1");
    let before = world.log.len();
    world.run(3600);
    assert_eq!(world.calls_since(before).len(), 0, "they are alike");
    regroup_primary(&mut world, "sg-9");
    assert_eq!(groups(&world), ["sg-9"]);
    let sets = world
        .log
        .iter()
        .filter(|c| matches!(c, Command::SetGroups { .. }));
    assert_eq!(sets.count(), 1);
}

#[test]
fn a_failed_change_of_groups_is_repeated() {
    let mut world = World::new("m5.large", config());
    fill(&mut world, 0..12);
    world.fault(
        crate::gate::Action::Regroup,
        vec![super::world::Fault::Refuse(crate::Class::Transient); 2],
    );
    regroup_primary(&mut world, "sg-9");
    world.run(600);
    assert_eq!(groups(&world), ["sg-9"]);
}

#[test]
fn in_custom_networking_enis_keep_the_groups_that_they_were_created_with() {
    let mut world = World::placed("m5.large", config(), Ok(class("subnet-2", None)));
    world.plot("subnet-2", 500);
    world.start();
    fill(&mut world, 0..3);
    regroup_primary(&mut world, "sg-9");
    assert_eq!(groups(&world), ["sg-1"]);
}
