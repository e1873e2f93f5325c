//! IPv6: one /80 prefix on the primary ENI serves the node, and the pool maintains it like other blocks.

use std::time::Duration;

use super::world::{Fault, World, sandbox};
use crate::{
    Amount, Class, Command, Config, Event, Family, Refusal, gate::Action, limits, snapshot::Phase,
};

fn config() -> Config {
    Config {
        family: Family::V6,
        prefix_delegation: true,
        ..Config::default()
    }
}

fn prefixes(world: &World) -> usize {
    let all = world.enis.values();
    all.map(|eni| eni.observed.prefixes.len()).sum()
}

#[test]
fn a_new_node_asks_for_one_prefix_and_for_nothing_more() {
    let mut world = World::new("m5.large", config());
    let asked: Vec<_> = world.calls_since(0).into_iter().cloned().collect();
    assert!(
        matches!(
            &asked[..],
            [Command::Assign {
                amount: Amount::Ipv6Prefixes(1),
                ..
            }]
        ),
        "{asked:?}"
    );
    let from = world.log.len();
    for n in 0..60 {
        let ticket = world.add(n);
        assert!(world.granted[&ticket].1.is_ipv6());
    }
    world.run(3600);
    assert_eq!(
        world.calls_since(from),
        Vec::<&Command>::new(),
        "an idle node asks nothing"
    );
    assert_eq!(world.planner.totals().max_enis, 1);
}

/// The first pods may arrive before the first list.
#[test]
fn pods_that_come_early_wait_for_the_prefix() {
    let mut world = World::bare("m5.large", config());
    let tickets: Vec<_> = (0..20).map(|n| world.add(n)).collect();
    assert!(world.granted.is_empty());
    world.start();
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
    assert_eq!(prefixes(&world), 1);
}

#[test]
fn an_address_rests_and_then_serves_again() {
    let mut world = World::new("m5.large", config());
    for n in 0..200 {
        world.add(n);
        world.left(n);
        world.run(1);
    }
    // One per second, each with a cooldown: the addresses of the prefix are reused.
    let view = world.planner.snapshot(world.now);
    let known: usize = view.enis.iter().map(|eni| eni.addresses.len()).sum();
    assert!(known <= 40, "{known} addresses are written down");
}

#[test]
fn the_limit_is_that_of_prefixes_and_is_shown() {
    let mut world = World::new("t3.nano", config());
    let limit = limits::pod_limit(limits::require("t3.nano").unwrap(), &config(), true);
    assert_eq!(limit.addresses, 2 * 16);
    assert!(limit.derivation.contains("IPv6"), "{}", limit.derivation);
    for n in 0..limit.addresses {
        world.add(n);
    }
    let over = world.add(1000);
    assert!(
        matches!(&world.refused[&over], Refusal::PodLimit { limit: 32, used: 32, wait: 0, why } if *why == limit.derivation),
        "{:?}",
        world.refused
    );
}

/// The AWS VPC CNI asks only once, at its start.
#[test]
fn a_refusal_is_not_the_end() {
    let mut world = World::bare("m5.large", config());
    let denied = Class::Denied {
        action: "ec2:AssignIpv6Addresses".into(),
        why: None,
    };
    world.fault(
        Action::Assign,
        [Fault::Refuse(denied), Fault::Refuse(Class::Transient)],
    );
    world.start();
    world.run(600);
    assert_eq!(prefixes(&world), 1);
    assert!(
        world
            .calls_since(0)
            .iter()
            .all(|call| !matches!(call, Command::CreateEni { .. }))
    );
}

#[test]
fn a_lost_answer_is_looked_up_and_not_asked_for_twice() {
    let mut world = World::bare("m5.large", config());
    world.fault(Action::Assign, [Fault::LoseReply]);
    world.start();
    world.run(120);
    assert_eq!(prefixes(&world), 1);
    let ticket = world.add(1);
    assert!(world.granted.contains_key(&ticket));
}

/// Someone removed the prefix: its pods keep it, new pods get another one, and a prefix that is listed again is usable
/// again.
#[test]
fn a_prefix_that_vanishes_is_replaced() {
    let mut world = World::new("m5.large", config());
    world.add(1);
    let lost = world.live[&sandbox(1)];
    world.stolen.insert(lost);
    let primary = world.enis.keys().next().unwrap().clone();
    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .prefixes
        .clear();
    let list = world.listing();
    world.run(20);
    world.send(Event::Inventory(list));
    world.run(60);
    assert_eq!(prefixes(&world), 1, "the pool has another");
    let ticket = world.add(2);
    let (_, address, _) = world.granted[&ticket].clone();
    assert_ne!(address, lost);
    assert_eq!(world.live[&sandbox(1)], lost);
}

/// Three prefixes were removed while pods used them, and an ENI of this type has three slots. Before the fix, the node
/// stopped requesting prefixes (seed 399067 of the simulation).
#[test]
fn prefixes_that_are_gone_with_pods_on_them_leave_room_for_another() {
    let mut world = World::new("t3.small", config());
    let eni = world.enis.keys().next().unwrap().clone();
    for n in 0..4 {
        let ticket = world.add(n);
        world.run(60);
        assert!(
            world.granted.contains_key(&ticket),
            "{n}: {:?}",
            world.refused
        );
        let gone = std::mem::take(&mut world.enis.get_mut(&eni).unwrap().observed.prefixes);
        assert_eq!(gone.len(), 1, "{n}");
        world.stolen.insert(world.granted[&ticket].1);
        for _ in 0..2 {
            let list = world.listing();
            world.send(Event::Inventory(list));
            world.run(31);
        }
    }
    let ticket = world.add(100);
    world.run(60);
    assert!(world.granted.contains_key(&ticket), "{:?}", world.refused);
}

#[test]
fn a_second_prefix_is_returned_and_the_last_is_kept() {
    let mut world = World::new("m5.large", config());
    let primary = world.enis.keys().next().unwrap().clone();
    world.give(&primary, Amount::Ipv6Prefixes(1));
    world.add(1);
    let list = world.listing();
    world.run(20);
    world.send(Event::Inventory(list));
    world.run(300);
    assert_eq!(prefixes(&world), 1);
    world.left(1);
    world.run(3600);
    assert_eq!(prefixes(&world), 1, "an idle node keeps its prefix");
}

#[test]
fn a_restart_knows_its_pods_wherever_in_the_prefix_they_are() {
    let mut world = World::new("m5.large", config());
    for n in 0..30 {
        world.add(n);
    }
    for n in 0..20 {
        world.left(n);
    }
    let snapshot = world.planner.snapshot(world.now);
    let eni = snapshot.enis[0].id.clone().unwrap();
    let live = world.live.clone();
    let assigned = live
        .iter()
        .map(|(s, a)| (s.clone(), Default::default(), *a, eni.clone()));
    let resting = world
        .rested
        .iter()
        .map(|(a, at)| (*a, *at + Duration::from_secs(30)));
    let restored = crate::Restored {
        enis: world.listing(),
        assigned: assigned.collect(),
        cooling: resting.collect(),
        ..crate::Restored::default()
    };
    world.restart("m5.large", config());
    world.send(Event::Restore(restored));
    let totals = world.planner.totals();
    assert_eq!(
        (totals.assigned, totals.cooling, totals.prefixes),
        (10, 20, 1)
    );
    for n in 100..150 {
        let ticket = world.add(n);
        assert!(world.granted.contains_key(&ticket));
    }
    world.start();
    assert_eq!(world.planner.totals().assigned, 60);
    assert_eq!(prefixes(&world), 1);
}

/// Seed 1227 of the simulation: more pods than the ENI has slots, on a prefix that someone removed, and a restarted
/// daemon. If the pods counted one by one, there would be no room for another prefix.
#[test]
fn pods_of_a_prefix_that_is_gone_take_one_slot_after_a_restart() {
    let mut world = World::new("t3.small", config());
    for n in 0..12 {
        world.add(n);
    }
    let snapshot = world.planner.snapshot(world.now);
    let eni = snapshot.enis[0].id.clone().unwrap();
    let live = world.live.clone();
    let assigned = live
        .iter()
        .map(|(s, a)| (s.clone(), Default::default(), *a, eni.clone()));
    world.stolen.extend(live.values());
    world.enis.get_mut(&eni).unwrap().observed.prefixes.clear();
    let restored = crate::Restored {
        enis: world.listing(),
        assigned: assigned.collect(),
        ..crate::Restored::default()
    };
    world.restart("t3.small", config());
    world.send(Event::Restore(restored));
    let early = world.add(100);
    assert!(
        !world.granted.contains_key(&early),
        "EC2 has not listed the prefix"
    );
    world.start();
    world.run(60);
    assert_eq!(prefixes(&world), 1);
    assert!(world.granted.contains_key(&early), "{:?}", world.refused);
    assert!(world.planner.totals().quarantined > 0, "the pods' own");
}

/// ENIs from a time when the node gave IPv4 addresses to its pods.
#[test]
fn enis_of_the_other_family_are_released() {
    let mut world = World::bare("m5.large", config());
    world.foreign(1, true);
    world.start();
    world.run(300);
    assert_eq!(world.enis.len(), 1);
    let phases: Vec<_> = world
        .planner
        .snapshot(world.now)
        .enis
        .iter()
        .map(|e| e.phase)
        .collect();
    assert_eq!(phases, [Phase::Ready]);
}
