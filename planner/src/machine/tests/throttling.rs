//! A throttled account: the node waits for its current action and does not start another. Also the rate of lists, which
//! prevents that a node with many doubts fills the queue.

use std::time::Duration;

use super::world::{Fault, World};
use crate::{Class, Command, Config, gate::Action};

fn later() -> Vec<Fault> {
    let class = Class::Throttled {
        retry_after: Some(Duration::from_secs(7)),
    };
    vec![Fault::Refuse(class); 1000]
}

/// Only what pods wait for is requested.
fn no_spare() -> Config {
    Config {
        warm_eni_target: Some(0),
        ..Config::upstream()
    }
}

fn count(world: &World, f: fn(&Command) -> bool) -> usize {
    world.log.iter().filter(|c| f(c)).count()
}

/// While its Attach waits, a second ENI would wait behind it: two more calls, and one more ENI to return.
#[test]
fn an_eni_whose_attach_waits_is_still_counted_upon() {
    let mut world = World::new("m5.large", no_spare());
    world.fault(Action::Attach, later());
    for n in 0..10 {
        world.add(n);
    }
    world.run(240);
    let tries = count(&world, |c| matches!(c, Command::AttachEni { .. }));
    assert!(
        (30..=36).contains(&tries),
        "one every seven seconds: {tries}"
    );
    assert_eq!(count(&world, |c| matches!(c, Command::CreateEni { .. })), 1);
    world.faults.clear();
    let waits = world.add(10);
    world.run(20);
    assert_eq!(world.attached(), 2);
    assert!(world.granted.contains_key(&waits));
}

#[test]
fn a_throttled_assign_creates_no_eni() {
    let mut world = World::bare("m5.large", no_spare());
    world.fault(Action::Assign, later());
    world.start();
    world.add(0);
    world.run(240);
    assert_eq!(count(&world, |c| matches!(c, Command::CreateEni { .. })), 0);
    world.faults.clear();
    let waits = world.add(1);
    world.run(20);
    assert!(world.granted.contains_key(&waits));
}

/// I9: doubts that arise faster than the rate of lists share lists.
#[test]
fn lists_are_asked_for_at_a_pace_however_many_answers_get_lost() {
    let mut world = World::new(
        "m5.xlarge",
        Config {
            warm_ip_target: Some(30),
            ..Config::upstream()
        },
    );
    world.fault(Action::Assign, vec![Fault::LoseReply; 100]);
    world.fault(Action::Delete, vec![Fault::LoseReply; 100]);
    world.fault(Action::Attach, vec![Fault::LoseReply; 100]);
    let before = world.planner.counters().describes;
    for n in 0..60 {
        world.add(n);
        world.left(n.saturating_sub(20));
        world.run(1);
    }
    let asked = world.planner.counters().describes - before;
    assert!((5..=20).contains(&asked), "{asked} in a minute");
}
