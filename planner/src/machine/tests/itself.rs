//! A pool that sizes itself: no `WARM_*` variable is set.

use super::world::World;
use crate::{Amount, Command, Config, Event, Restored};

const HOUR: u64 = 3600;

/// After the initial expectation of a new node has decayed.
fn settled(config: Config) -> World {
    let mut world = World::new("m5.xlarge", config);
    world.run(6 * HOUR);
    world
}

#[test]
fn a_fresh_node_holds_half_an_eni_and_soon_less() {
    let mut world = World::new("m5.xlarge", Config::default());
    assert_eq!(world.planner.totals().free, 7 + 2);
    world.run(6 * HOUR);
    assert_eq!(world.planner.totals().free, 2 + 2);
    let from = world.log.len();
    world.run(30 * 24 * HOUR);
    assert_eq!(world.log.len(), from, "silence for a month");
    assert_eq!(world.planner.next_deadline(), None);
}

#[test]
fn any_target_overrides_the_demand() {
    let five = Config {
        warm_ip_target: Some(5),
        ..Config::default()
    };
    assert_eq!(World::new("m5.xlarge", five).planner.totals().free, 5);
    let eni = Config {
        warm_eni_target: Some(1),
        ..Config::default()
    };
    assert_eq!(World::new("m5.xlarge", eni).planner.totals().free, 14);
    let minimum = Config {
        minimum_ip_target: Some(3),
        ..Config::default()
    };
    assert_eq!(World::new("m5.xlarge", minimum).planner.totals().free, 3);
}

#[test]
fn pods_one_by_one_do_not_cost_a_call_each() {
    let mut world = settled(Config::default());
    let from = world.log.len();
    for n in 0..13 {
        world.add(n);
        world.run(60);
    }
    let calls = world.calls_since(from);
    assert!(
        calls.len() <= 4 && calls.iter().all(|c| matches!(c, Command::Assign { .. })),
        "no second ENI while the first one's slots hold the spare: {calls:?}"
    );
    assert!(world.refused.is_empty());
}

#[test]
fn churn_within_the_band_makes_no_call() {
    let mut world = settled(Config::default());
    for n in 0..8 {
        world.add(n);
        world.run(60);
    }
    world.run(2 * HOUR);
    let from = world.log.len();
    for n in 0..50 {
        world.left(n);
        world.run(90);
        world.add(n + 8);
        world.run(90);
    }
    assert!(world.calls_since(from).is_empty());
}

#[test]
fn an_eni_outlives_its_addresses_until_it_was_not_needed_for_days() {
    let mut world = settled(Config::default());
    for n in 0..40 {
        world.add(n);
    }
    world.run(60);
    assert_eq!((world.live.len(), world.attached()), (40, 4));
    for n in 0..40 {
        world.left(n);
    }
    world.run(2 * HOUR);
    assert_eq!(world.attached(), 4);
    assert!(world.planner.totals().free <= 2 + 3 * 2, "but bare");
    let from = world.log.len();
    for n in 100..140 {
        world.add(n);
    }
    world.run(60);
    let calls = world.calls_since(from);
    assert!(
        calls.len() <= 4 && calls.iter().all(|c| matches!(c, Command::Assign { .. })),
        "{calls:?}"
    );
    for n in 100..140 {
        world.left(n);
    }
    world.run(14 * 24 * HOUR);
    assert_eq!(world.attached(), 1);
    assert_eq!(world.planner.next_deadline(), None);
}

#[test]
fn the_limit_of_the_node_bounds_requests() {
    let mut world = World::new("t3.small", Config::default());
    for n in 0..9 {
        world.add(n);
        world.run(30);
    }
    let totals = world.planner.totals();
    assert_eq!((totals.assigned, totals.free, totals.enis), (9, 0, 3));
}

#[test]
fn prefixes_are_requested_and_returned_whole() {
    let mut world = settled(Config {
        prefix_delegation: true,
        ..Config::default()
    });
    let from = world.log.len();
    for n in 0..40 {
        world.add(n);
    }
    world.run(60);
    let whole = |c: &&Command| {
        !matches!(
            c,
            Command::Assign {
                amount: Amount::Addresses(_),
                ..
            }
        )
    };
    assert!(world.calls_since(from).iter().all(whole));
    assert_eq!(world.live.len(), 40);
    for n in 0..40 {
        world.left(n);
    }
    world.run(24 * HOUR);
    assert_eq!(world.planner.totals().prefixes, 1);
}

#[test]
fn demand_survives_a_restart() {
    let mut world = settled(Config::default());
    for round in 0..8 {
        for n in 0..10 {
            world.add(round * 10 + n);
        }
        world.run(120);
        for n in 0..10 {
            world.left(round * 10 + n);
        }
        world.run(120);
    }
    let demand = world.planner.snapshot(world.now).demand;
    assert!(demand.bursts.iter().any(|(size, _)| *size == 10));
    let list = world.listing();
    world.restart("m5.xlarge", Config::default());
    world.send(Event::Restore(Restored {
        enis: list.clone(),
        demand: Some(demand.clone()),
        ..Restored::default()
    }));
    world.send(Event::Inventory(list));
    assert_eq!(world.planner.snapshot(world.now).demand, demand);
}
