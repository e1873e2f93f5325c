//! Returning: only a surplus that has lasted, and never anything in use.

use super::world::{Fault, World};
use crate::{Class, Command, Config, Event, Pod, Restored, gate::Action};

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

/// Ten pods were created and deleted.
fn after_a_job(config: Config) -> World {
    let mut world = World::new("m5.large", config);
    for n in 0..10 {
        world.add(n);
    }
    world.run(20);
    for n in 0..10 {
        world.left(n);
    }
    world
}

#[test]
fn a_surplus_must_last_before_it_is_returned() {
    let mut world = after_a_job(ip_targets(2, 2));
    let from = world.log.len();
    world.run(59);
    assert_eq!(
        world.calls_since(from).len(),
        0,
        "thirty seconds of rest and thirty of surplus"
    );
    world.run(60);
    let totals = world.planner.totals();
    assert_eq!((totals.free, totals.cooling, world.attached()), (2, 0, 1));
    let from = world.log.len();
    world.run(3600);
    assert_eq!(world.calls_since(from).len(), 0, "and then there is peace");
}

#[test]
fn an_idle_eni_is_taken_out_of_use_then_detached_then_deleted() {
    let mut world = after_a_job(Config {
        warm_eni_target: Some(1),
        ..Config::upstream()
    });
    let from = world.log.len();
    world.run(300);
    assert_eq!(world.attached(), 1);
    let steps: Vec<_> = world.log[from..]
        .iter()
        .filter_map(|c| match c {
            Command::DeconfigureEni { .. } => Some(1),
            Command::DetachEni { .. } => Some(2),
            Command::DeleteEni { .. } => Some(3),
            _ => None,
        })
        .collect();
    assert!(
        steps.len() % 3 == 0 && steps.iter().filter(|step| **step == 2).count() == steps.len() / 3,
        "{steps:?}"
    );
    assert_eq!((steps[0], *steps.last().unwrap()), (1, 3));
}

#[test]
fn an_eni_with_a_pod_stays() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    for n in 0..10 {
        world.add(n);
    }
    world.run(20);
    for n in 0..9 {
        world.left(n);
    }
    world.run(600);
    assert_eq!(world.attached(), 2, "pod 9 lives on the second");
}

#[test]
fn a_cordoned_node_keeps_its_enis_but_not_its_surplus() {
    let mut world = after_a_job(ip_targets(2, 2));
    world.send(Event::Node {
        schedulable: false,
        stopping: false,
    });
    world.run(600);
    assert_eq!((world.attached(), world.planner.totals().free), (2, 2));
}

#[test]
fn prefixes_are_returned_whole() {
    let config = Config {
        prefix_delegation: true,
        ..ip_targets(4, 0)
    };
    let mut world = World::new("m5.large", config);
    for n in 0..40 {
        world.add(n);
    }
    world.run(10);
    assert_eq!(world.planner.totals().prefixes, 3);
    for n in 0..40 {
        world.left(n);
    }
    world.run(120);
    assert_eq!(
        (world.planner.totals().prefixes, world.planner.totals().free),
        (1, 16)
    );
}

#[test]
fn a_lost_unassign_is_looked_up() {
    let mut world = after_a_job(ip_targets(2, 2));
    world.fault(Action::Unassign, [Fault::LoseReply]);
    world.run(300);
    assert_eq!(world.planner.totals().free, 2);
    assert!(world.planner.counters().describes >= 1);
}

#[test]
fn a_failed_unassign_leaves_usable_addresses() {
    let mut world = after_a_job(ip_targets(2, 2));
    world.fault(Action::Unassign, [Fault::Refuse(Class::InUse)]);
    world.run(300);
    let totals = world.planner.totals();
    assert_eq!((totals.free, totals.releasing), (2, 0));
}

#[test]
fn a_slow_detach_delays_nothing_else() {
    let mut world = after_a_job(Config {
        warm_eni_target: Some(0),
        ..Config::upstream()
    });
    world.fault(Action::Detach, [Fault::Silence]);
    world.run(90);
    let tickets: Vec<_> = (100..109).map(|n| world.add(n)).collect();
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
    let waits = world.add(109);
    world.run(20);
    assert!(
        world.granted.contains_key(&waits),
        "a third ENI serves while the second is being detached"
    );
    world.run(900);
    assert!(
        world
            .enis
            .values()
            .all(|eni| eni.observed.attached.is_some()),
        "and the slow one is gone in the end"
    );
}

#[test]
fn pods_that_come_while_an_eni_is_drained_bring_it_back() {
    let mut world = after_a_job(Config {
        warm_eni_target: Some(0),
        ..Config::upstream()
    });
    while !world
        .log
        .iter()
        .any(|c| matches!(c, Command::DeconfigureEni { .. }))
    {
        world.run(1);
        assert!(world.now.since_epoch().as_secs() < 2000);
    }
    let from = world.log.len();
    let tickets: Vec<_> = (100..110).map(|n| world.add(n)).collect();
    world.run(30);
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
    drop(world.calls_since(from));
}

/// The mode is an environment variable. It changes with a restart while pods keep running (upstream-ipam §4.8).
#[test]
fn a_node_that_no_longer_wants_prefixes_exchanges_them_for_addresses() {
    let config = |prefix_delegation| Config {
        prefix_delegation,
        ..ip_targets(2, 0)
    };
    let mut world = World::new("m5.large", config(true));
    for n in 0..20 {
        world.add(n);
    }
    world.run(60);
    let restored = Restored {
        enis: world.listing(),
        assigned: world
            .live
            .iter()
            .map(|(sandbox, address)| {
                let owner = world.enis.values().find(|eni| {
                    let mut prefixes = eni.observed.prefixes.iter();
                    prefixes.any(|net| net.contains(address))
                });
                let eni = owner.unwrap().observed.eni.clone();
                (sandbox.clone(), Pod::default(), *address, eni)
            })
            .collect(),
        ..Restored::default()
    };
    world.restart("m5.large", config(false));
    world.send(Event::Restore(restored));
    world.start();
    let held = |world: &World| {
        let all = world.enis.values().map(|eni| &eni.observed);
        let sum = all.map(|eni| (eni.prefixes.len(), eni.addresses.len()));
        sum.fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1))
    };
    assert_eq!(held(&world), (2, 0), "their free addresses are enough");
    for n in 0..20 {
        world.left(n);
    }
    world.run(300);
    assert_eq!(held(&world), (0, 2), "and nothing is left of them");
    assert_eq!(world.attached(), 1, "an exchange is not worth an ENI");
}
