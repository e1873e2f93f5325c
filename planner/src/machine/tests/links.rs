//! Links that disappear without an EC2 call by the daemon: someone else removed the ENI (row 18).

use std::time::Duration;

use super::world::{Fault, World};
use crate::{Class, Command, Config, EniId, Event, Mac, gate::Action, snapshot::Phase};

/// Nine pods on the primary ENI, one on the second.
fn two_enis() -> (World, EniId, Mac) {
    let config = Config {
        warm_eni_target: Some(0),
        ..Config::upstream()
    };
    let mut world = World::new("m5.large", config);
    for n in 0..10 {
        world.add(n);
    }
    world.run(60);
    let (id, eni) = world
        .enis
        .iter()
        .find(|(_, eni)| eni.observed.attached.as_ref().unwrap().device == 1)
        .unwrap();
    let (id, mac) = (id.clone(), eni.observed.mac);
    (world, id, mac)
}

fn free_on(world: &World, eni: &EniId) -> Option<(Phase, bool)> {
    let snapshot = world.planner.snapshot(world.now);
    let view = snapshot
        .enis
        .iter()
        .find(|view| view.id.as_ref() == Some(eni))?;
    Some((view.phase, view.usable))
}

#[test]
fn an_eni_without_a_link_serves_no_pod_and_ec2_is_asked() {
    let (mut world, id, mac) = two_enis();
    let before = world.planner.counters().describes;
    world.run(7200);
    assert_eq!(
        world.planner.counters().describes,
        before,
        "an idle node asks nothing"
    );
    world.enis.get_mut(&id).unwrap().observed.attached = None;
    world.enis.get_mut(&id).unwrap().configured = false;
    world.send(Event::EniLinkGone { mac });
    // Before any answer: the world would panic if an address of this ENI were assigned.
    assert_eq!(free_on(&world, &id), Some((Phase::Configuring, false)));
    let fresh = world.add(20);
    world.run(59);
    assert!(
        world.granted.contains_key(&fresh),
        "another ENI serves within the minute"
    );
    world.left(9);
    world.run(600);
    assert!(
        !world.enis.contains_key(&id),
        "what nobody uses any more is deleted, not leaked"
    );
}

#[test]
fn a_link_that_comes_back_serves_again() {
    let (mut world, id, mac) = two_enis();
    world.send(Event::EniLinkGone { mac });
    let commands: Vec<_> = world.log.iter().rev().take(2).collect();
    assert!(
        commands
            .iter()
            .any(|c| matches!(c, Command::ConfigureEni(what) if what.eni == id)),
        "{commands:?}"
    );
    world.run(30);
    assert_eq!(free_on(&world, &id), Some((Phase::Ready, true)));
    let asked = world.planner.counters().describes;
    world.run(7200);
    assert_eq!(
        world.planner.counters().describes,
        asked,
        "and no more questions"
    );
}

#[test]
fn a_link_that_is_no_enis_changes_nothing() {
    let (mut world, ..) = two_enis();
    let stranger = Mac([6, 6, 6, 6, 6, 6]);
    assert_eq!(world.send(Event::EniLinkGone { mac: stranger }), []);
}

/// A request for an earlier list must not replace one for a later list: the effect may not be visible in the earlier
/// one.
#[test]
fn an_early_look_does_not_stand_for_a_later_one() {
    let (mut world, id, mac) = two_enis();
    let stale = world.enis[&id].observed.attached.clone();
    world.send(Event::EniLinkGone { mac });
    // The first list is old and still shows it as attached.
    world.run(2);
    world.enis.get_mut(&id).unwrap().observed.attached = None;
    world.enis.get_mut(&id).unwrap().configured = false;
    assert!(stale.is_some() && world.planner.counters().describes == 1);
    world.now = world.now + Duration::from_secs(1);
    world.run(15);
    assert!(world.planner.counters().describes >= 2);
    let snapshot = world.planner.snapshot(world.now);
    let view = snapshot
        .enis
        .iter()
        .find(|view| view.id.as_ref() == Some(&id))
        .unwrap();
    assert!(view.missing, "the second list told");
}

/// I9: the sender may repeat the event again and again.
#[test]
fn a_link_that_stays_away_is_asked_about_once() {
    let (mut world, id, mac) = two_enis();
    world.fault(Action::Configure, vec![Fault::Refuse(Class::Host); 1000]);
    for _ in 0..120 {
        world.send(Event::EniLinkGone { mac });
        world.run(10);
    }
    assert_eq!(free_on(&world, &id), Some((Phase::Configuring, false)));
    let asked = world.planner.counters().describes;
    assert!((1..=3).contains(&asked), "{asked} lists in twenty minutes");
}
