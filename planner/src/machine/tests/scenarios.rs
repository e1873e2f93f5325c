//! Serving, growing and refusing with a healthy EC2.

use std::time::Duration;

use super::world::{World, sandbox};
use crate::{Amount, Command, Config, Event, Refusal, limits, snapshot::AddressState};

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

#[test]
fn a_fresh_node_fills_its_primary_eni_and_no_more() {
    let world = World::new("m5.large", Config::upstream());
    let calls = world.calls_since(0);
    assert!(
        matches!(
            calls.as_slice(),
            [Command::Assign {
                amount: Amount::Addresses(9),
                ..
            }]
        ),
        "{calls:?}"
    );
    assert_eq!(world.planner.totals().free, 9);
}

#[test]
fn an_idle_node_at_its_target_makes_no_call() {
    let mut world = World::new("m5.large", Config::upstream());
    let from = world.log.len();
    world.run(86_400);
    assert_eq!(world.log.len(), from);
    assert_eq!(world.planner.next_deadline(), None);
}

#[test]
fn a_warm_add_is_answered_at_once() {
    let mut world = World::new("m5.large", Config::upstream());
    let ticket = world.add(1);
    assert!(world.granted.contains_key(&ticket));
}

#[test]
fn a_repeated_add_gets_the_same_address() {
    let mut world = World::new("m5.large", Config::upstream());
    let (first, second) = (world.add(1), world.add(1));
    assert_eq!(world.granted[&first].1, world.granted[&second].1);
    assert!(!world.granted[&first].2 && world.granted[&second].2);
}

#[test]
fn an_add_during_wiring_shares_the_outcome() {
    let mut world = World::new("m5.large", Config::upstream());
    world.auto_wire = false;
    let (first, second) = (world.add(1), world.add(1));
    assert!(world.granted.contains_key(&first) && !world.granted.contains_key(&second));
    world.send(Event::Wired {
        sandbox: sandbox(1),
    });
    assert_eq!(world.granted[&second].1, world.granted[&first].1);
}

#[test]
fn an_add_behind_a_failed_wiring_gets_its_own_try() {
    let mut world = World::new("m5.large", Config::upstream());
    world.auto_wire = false;
    let (_, second) = (world.add(1), world.add(1));
    world.live.clear();
    world.send(Event::Unwired {
        sandbox: sandbox(1),
    });
    assert!(!world.granted[&second].2, "to be wired afresh");
}

#[test]
fn an_unwired_address_does_not_rest_and_a_left_one_does() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    world.auto_wire = false;
    let first = world.add(1);
    let address = world.granted[&first].1;
    world.live.clear();
    world.send(Event::Unwired {
        sandbox: sandbox(1),
    });
    let second = world.add(2);
    assert_eq!(world.granted[&second].1, address);
    world.send(Event::Wired {
        sandbox: sandbox(2),
    });
    world.left(2);
    world.run(5);
    let third = world.add(3);
    assert_ne!(world.granted[&third].1, address);
    assert_eq!(world.planner.totals().cooling, 1);
    world.run(26);
    assert_eq!(world.planner.totals().cooling, 0);
}

#[test]
fn the_wait_wakes_growth_and_ends_with_the_first_address() {
    let mut world = World::new(
        "m5.large",
        Config {
            warm_eni_target: Some(0),
            ..Config::upstream()
        },
    );
    for n in 0..9 {
        world.add(n);
    }
    let ticket = world.add(9);
    assert!(!world.granted.contains_key(&ticket));
    world.run(2);
    assert!(
        world.granted.contains_key(&ticket),
        "Create, Attach and Configure take half a second each"
    );
}

#[test]
fn a_burst_is_grown_for_in_one_call_per_eni() {
    let mut world = World::new("m5.24xlarge", ip_targets(2, 2));
    let from = world.log.len();
    let tickets: Vec<_> = (0..250).map(|n| world.add(n)).collect();
    world.run(10);
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
    let calls = world.calls_since(from);
    let count = |f: fn(&Command) -> bool| calls.iter().filter(|c| f(c)).count();
    assert_eq!(
        count(|c| matches!(c, Command::CreateEni { .. })),
        5,
        "252 addresses on six ENIs of 49"
    );
    assert!(
        calls.len() <= 1 + 6 * 3,
        "at most 1 + ENIs × 3 calls, not {}",
        calls.len()
    );
    assert_eq!(count(|c| matches!(c, Command::Describe { .. })), 0);
}

#[test]
fn demand_under_way_is_not_asked_for_twice() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    world.latency = Duration::from_secs(5);
    let from = world.log.len();
    world.add(1);
    world.add(2);
    world.run(1);
    for n in 3..6 {
        world.add(n);
    }
    world.run(1);
    assert_eq!(
        world.calls_since(from).len(),
        1,
        "the first call is still out; the next one follows its answer"
    );
    world.run(10);
    assert_eq!(world.calls_since(from).len(), 2);
    assert_eq!(world.planner.totals().free, 1);
}

#[test]
fn the_pod_limit_refuses_at_once_with_its_derivation() {
    let config = Config::upstream();
    let mut world = World::new("m5.large", config.clone());
    for n in 0..27 {
        world.add(n);
    }
    world.run(30);
    assert_eq!(world.granted.len(), 27);
    let ticket = world.add(27);
    let why = limits::pod_limit(limits::require("m5.large").unwrap(), &config, true).derivation;
    assert_eq!(
        world.refused[&ticket],
        Refusal::PodLimit {
            limit: 27,
            used: 27,
            wait: 0,
            why
        }
    );
}

#[test]
fn foreign_enis_make_less_room_and_are_named() {
    let mut world = World::bare("m5.large", Config::upstream());
    world.foreign(1, false);
    world.foreign(2, false);
    world.start();
    let tickets: Vec<_> = (0..10).map(|n| world.add(n)).collect();
    assert_eq!(world.granted.len(), 9);
    match &world.refused[&tickets[9]] {
        Refusal::EniLimit { why } => assert_eq!(
            why,
            "m5.large supports 3 ENIs; 1 are in the pool, 2 are not managed by it"
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cooling_address_is_worth_waiting_for() {
    let mut world = World::new(
        "m5.large",
        Config {
            max_eni: Some(1),
            ..Config::upstream()
        },
    );
    for n in 0..9 {
        world.add(n);
    }
    world.left(4);
    let ticket = world.add(9);
    assert!(!world.refused.contains_key(&ticket));
    world.run(31);
    assert!(world.granted.contains_key(&ticket));
}

#[test]
fn the_fullest_eni_and_the_first_released_address_are_used_first() {
    let mut world = World::new(
        "m5.large",
        Config {
            warm_eni_target: Some(2),
            ..Config::upstream()
        },
    );
    world.run(60);
    let tickets: Vec<_> = (0..3).map(|n| world.add(n)).collect();
    let first_three: Vec<_> = tickets.iter().map(|t| world.granted[t].1).collect();
    for n in 0..3 {
        world.left(n);
        world.run(1);
    }
    world.run(60);
    let again: Vec<_> = (10..19).map(|n| world.add(n)).collect();
    let order: Vec<_> = again.iter().map(|t| world.granted[t].1).collect();
    assert_eq!(
        &order[6..],
        &first_three[..],
        "never used ones first, then in the order of release, all on one ENI"
    );
}

#[test]
fn wait_order_is_arrival_order() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    let tickets: Vec<_> = (0..6).map(|n| world.add(n)).collect();
    world.run(10);
    let order = world.log.iter().filter_map(|c| match c {
        Command::Grant { ticket, .. } => Some(*ticket),
        _ => None,
    });
    assert_eq!(order.collect::<Vec<_>>(), tickets);
}

#[test]
fn a_cancelled_ticket_is_removed() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    world.add(1);
    let second = world.add(2);
    world.send(Event::Cancel { ticket: second });
    world.run(100);
    assert!(!world.granted.contains_key(&second) && !world.refused.contains_key(&second));
}

#[test]
fn a_stopping_daemon_refuses_and_makes_no_calls() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    world.add(1);
    let waits = world.add(2);
    let from = world.log.len();
    world.send(Event::Node {
        schedulable: true,
        stopping: true,
    });
    let late = world.add(3);
    assert_eq!(
        (&world.refused[&waits], &world.refused[&late]),
        (&Refusal::Stopping, &Refusal::Stopping)
    );
    world.run(600);
    assert_eq!(world.calls_since(from).len(), 0);
}

#[test]
fn without_provisioning_nothing_grows_and_the_reason_is_shown() {
    let mut world = World::bare(
        "m5.large",
        Config {
            provisioning: false,
            ..Config::upstream()
        },
    );
    let primary = world.enis.keys().next().unwrap().clone();
    world.give(&primary, Amount::Addresses(2));
    world.start();
    let tickets: Vec<_> = (0..3).map(|n| world.add(n)).collect();
    assert_eq!(world.granted.len(), 2);
    let told = world.refused[&tickets[2]].to_string();
    assert!(
        told.contains("DISABLE_NETWORK_RESOURCE_PROVISIONING"),
        "{told}"
    );
    assert_eq!(world.calls_since(0).len(), 0);
}

#[test]
fn a_cordoned_node_grows_only_for_pods_that_wait() {
    let mut world = World::bare("m5.large", ip_targets(5, 5));
    world.send(Event::Node {
        schedulable: false,
        stopping: false,
    });
    world.start();
    assert_eq!(world.planner.totals().free, 0);
    let ticket = world.add(1);
    world.run(5);
    assert!(world.granted.contains_key(&ticket));
    assert_eq!(world.planner.totals().free, 0);
}

#[test]
fn prefixes_serve_sixteen_pods_each() {
    let config = Config {
        prefix_delegation: true,
        ..Config::upstream()
    };
    let mut world = World::new("m5.large", config);
    assert_eq!(
        (world.planner.totals().prefixes, world.planner.totals().free),
        (1, 16)
    );
    for n in 0..17 {
        world.add(n);
        world.run(2);
    }
    assert_eq!(
        (world.granted.len(), world.planner.totals().prefixes),
        (17, 3),
        "vector 23"
    );
    let eni = &world.planner.snapshot(world.now).enis[0];
    let used = eni
        .addresses
        .iter()
        .filter(|a| a.state == AddressState::Assigned);
    let prefixes: std::collections::BTreeSet<_> = used.map(|a| a.prefix).collect();
    assert_eq!(prefixes.len(), 2, "the third prefix stays whole");
}

#[test]
fn restored_pods_are_served_before_any_inventory() {
    let mut before = World::new(
        "m5.large",
        Config {
            warm_eni_target: Some(2),
            ..Config::upstream()
        },
    );
    before.run(30);
    for n in 0..3 {
        before.add(n);
    }
    let gone = before.live[&sandbox(2)];
    before.left(2);
    let snapshot = before.planner.snapshot(before.now);
    let home = |address| {
        let eni = snapshot
            .enis
            .iter()
            .find(|eni| eni.addresses.iter().any(|a| a.address == address))
            .unwrap();
        eni.id.clone().unwrap()
    };
    let assigned = before
        .live
        .iter()
        .map(|(s, address)| (s.clone(), crate::Pod::default(), *address, home(*address)));
    let cooling = vec![(gone, before.now + Duration::from_secs(30))];
    let restored = crate::Restored {
        enis: before.listing(),
        assigned: assigned.collect(),
        cooling,
        ..crate::Restored::default()
    };

    let mut after = before;
    after.restart("m5.large", Config::upstream());
    after.send(Event::Restore(restored));
    let known = after.add(0);
    assert!(after.granted[&known].2);
    let tickets: Vec<_> = (10..17).map(|n| after.add(n)).collect();
    assert!(
        tickets.iter().all(|ticket| after.granted[ticket].1 != gone),
        "it still rests"
    );
    assert_eq!(after.planner.totals().cooling, 1);
    assert_eq!(
        after
            .calls_since(0)
            .iter()
            .filter(|c| matches!(c, Command::Describe { .. }))
            .count(),
        0
    );
}

#[test]
fn the_first_released_address_is_used_first_after_a_restart_too() {
    let config = Config {
        warm_eni_target: Some(0),
        ..Config::upstream()
    };
    let mut world = World::new("m5.large", config.clone());
    let mut released: Vec<_> = (0..3).map(|n| (n, world.add(n))).collect();
    // Not in the order of the addresses, which is the tie-breaker.
    released.reverse();
    let mut cooling = Vec::new();
    for (n, ticket) in released {
        world.run(1);
        world.left(n);
        let until = world.now + config.cooldown;
        cooling.push((world.granted[&ticket].1, until));
    }
    let order: Vec<_> = cooling.iter().map(|(address, _)| *address).collect();
    cooling.sort();
    let restored = crate::Restored {
        enis: world.listing(),
        cooling,
        ..crate::Restored::default()
    };
    world.restart("m5.large", config);
    world.send(Event::Restore(restored));
    world.run(60);
    let tickets: Vec<_> = (10..19).map(|n| world.add(n)).collect();
    let granted: Vec<_> = tickets.iter().map(|t| world.granted[t].1).collect();
    assert_eq!(granted[6..], order[..], "{granted:?}");
}

#[test]
fn indices_outlive_a_restart() {
    let mut before = World::new(
        "m5.xlarge",
        Config {
            warm_eni_target: Some(4),
            ..Config::upstream()
        },
    );
    before.run(120);
    let index = |world: &World| -> Vec<_> {
        world
            .planner
            .snapshot(world.now)
            .enis
            .iter()
            .map(|eni| (eni.id.clone(), eni.index))
            .collect()
    };
    let lost = before.enis.keys().nth(1).unwrap().clone();
    before.enis.remove(&lost);
    let mut expected = index(&before);
    expected.retain(|(id, _)| id.as_ref() != Some(&lost));
    let mut after = before;
    after.restart("m5.xlarge", Config::upstream());
    after.send(Event::Restore(crate::Restored {
        enis: after.listing(),
        ..crate::Restored::default()
    }));
    let mut got = index(&after);
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
}
