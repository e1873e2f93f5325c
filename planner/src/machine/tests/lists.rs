//! EC2's lists and our state: stale lists, losses, stolen addresses, and objects that are not ours (ec2-and-faults §7
//! rows 16 to 20).

use super::world::{World, sandbox};
use crate::{Command, Config, Event, Pod, Restored, snapshot::AddressState};

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

/// A node whose primary ENI is full, so that the next pod needs a second one.
fn full() -> World {
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
    world
}

fn count(world: &World, from: usize, f: fn(&Command) -> bool) -> usize {
    world.log[from..].iter().filter(|c| f(c)).count()
}

/// Row 16: a stale list removes nothing and frees nothing.
#[test]
fn one_list_without_our_eni_removes_nothing() {
    let mut world = full();
    world.add(9);
    world.run(60);
    let mut list = world.listing();
    list.retain(|observed| {
        observed
            .attached
            .as_ref()
            .is_some_and(|attachment| attachment.device == 0)
    });
    let from = world.log.len();
    world.send(Event::Inventory(list));
    let ticket = world.add(10);
    assert!(
        !world.granted.contains_key(&ticket),
        "its addresses rest meanwhile"
    );
    world.run(59);
    assert!(
        world.granted.contains_key(&ticket),
        "the next list heals it"
    );
    assert_eq!(
        count(&world, from, |c| matches!(
            c,
            Command::DeconfigureEni { .. } | Command::DetachEni { .. }
        )),
        0
    );
}

/// Row 18.
#[test]
fn an_eni_that_vanished_keeps_its_pods_until_they_leave() {
    let mut world = full();
    world.add(9);
    world.run(60);
    let lost = world
        .enis
        .iter()
        .find(|(_, eni)| eni.observed.attached.as_ref().unwrap().device == 1)
        .unwrap()
        .0
        .clone();
    world.enis.remove(&lost);
    world.send(Event::Inventory(world.listing()));
    world.run(120);
    let eni = |world: &World| {
        world
            .planner
            .snapshot(world.now)
            .enis
            .into_iter()
            .find(|eni| eni.id.as_ref() == Some(&lost))
    };
    let view = eni(&world).expect("its pod is still there");
    assert!(
        view.missing
            && view
                .addresses
                .iter()
                .all(|a| a.state == AddressState::Quarantined)
    );
    let repeated = world.add(9);
    assert!(
        world.granted[&repeated].2,
        "DEL and repeated ADD still work"
    );
    let fresh = world.add(10);
    world.run(30);
    assert!(
        world.granted.contains_key(&fresh),
        "its slot is used by another"
    );
    world.left(9);
    world.run(2000);
    assert!(eni(&world).is_none(), "nothing leaks for ever");
}

/// Row 19.
#[test]
fn an_address_that_was_moved_away_is_quarantined_and_heals() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    let ticket = world.add(1);
    world.run(60);
    let address = world.granted[&ticket].1;
    let primary = world.enis.keys().next().unwrap().clone();
    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .addresses
        .retain(|other| *other != address);
    world.stolen.insert(address);
    world.send(Event::Inventory(world.listing()));
    let state = |world: &World| {
        let snapshot = world.planner.snapshot(world.now);
        snapshot
            .enis
            .iter()
            .flat_map(|eni| &eni.addresses)
            .find(|a| a.address == address)
            .map(|a| (a.state, a.sandbox.clone()))
    };
    assert_eq!(
        state(&world),
        Some((AddressState::Quarantined, Some(sandbox(1))))
    );
    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .addresses
        .push(address);
    world.send(Event::Inventory(world.listing()));
    assert_eq!(
        state(&world),
        Some((AddressState::Assigned, Some(sandbox(1))))
    );

    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .addresses
        .retain(|other| *other != address);
    world.send(Event::Inventory(world.listing()));
    world.left(1);
    world.run(2000);
    assert_eq!(
        state(&world),
        None,
        "without a pod, and twice not listed, it is given up"
    );
}

/// Row 20.
#[test]
fn an_eni_that_is_no_longer_ours_is_not_changed() {
    let mut world = full();
    world.add(9);
    world.run(60);
    let foreign = world
        .enis
        .iter()
        .find(|(_, eni)| eni.observed.attached.as_ref().unwrap().device == 1)
        .unwrap()
        .0
        .clone();
    world.enis.get_mut(&foreign).unwrap().observed.managed = false;
    world.send(Event::Inventory(world.listing()));
    world.left(9);
    let from = world.log.len();
    world.run(3600);
    let touched = world.log[from..].iter().any(|c| match c {
        Command::Assign { eni, .. }
        | Command::Unassign { eni, .. }
        | Command::DetachEni { eni, .. } => *eni == foreign,
        Command::DeleteEni { eni, .. } | Command::DeconfigureEni { eni, .. } => *eni == foreign,
        _ => false,
    });
    assert!(!touched);
}

/// The first list after a restart is compared with the whole record, however new the process is.
#[test]
fn a_restored_address_that_ec2_denies_is_quarantined_at_once() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    let ticket = world.add(1);
    world.run(30);
    let address = world.granted[&ticket].1;
    let primary = world.enis.keys().next().unwrap().clone();
    let assigned = vec![(sandbox(1), Pod::default(), address, primary.clone())];
    let restored = Restored {
        enis: world.listing(),
        assigned,
        ..Restored::default()
    };
    world.restart("m5.large", ip_targets(2, 2));
    world.send(Event::Restore(restored));
    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .addresses
        .retain(|other| *other != address);
    world.send(Event::Inventory(world.listing()));
    assert_eq!(world.planner.totals().quarantined, 1);
    let again = world.add(1);
    assert_eq!(
        world.granted[&again].1, address,
        "its pod still runs, and still has it"
    );
}

/// A pod whose ENI is not in the record is kept (upstream #3824), and its ENI is found later.
#[test]
fn a_restored_pod_on_an_unknown_eni_is_pinned() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    let ticket = world.add(1);
    world.run(30);
    let address = world.granted[&ticket].1;
    let primary = world.enis.keys().next().unwrap().clone();
    let assigned = vec![(sandbox(1), Pod::default(), address, primary)];
    world.restart("m5.large", ip_targets(2, 2));
    world.send(Event::Restore(Restored {
        assigned,
        ..Restored::default()
    }));
    world.send(Event::Inventory(world.listing()));
    world.run(30);
    let tickets = [world.add(2), world.add(3)];
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted[ticket].1 != address)
    );
    assert_eq!(world.planner.totals().assigned, 3);
}

#[test]
fn one_list_without_an_idle_eni_does_not_give_it_up() {
    let mut world = World::new(
        "m5.large",
        Config {
            warm_eni_target: Some(2),
            max_eni: Some(2),
            ..Config::upstream()
        },
    );
    world.run(60);
    let mut list = world.listing();
    list.retain(|observed| {
        observed
            .attached
            .as_ref()
            .is_some_and(|attachment| attachment.device == 0)
    });
    let from = world.log.len();
    world.send(Event::Inventory(list));
    world.run(120);
    assert_eq!(
        count(&world, from, |c| matches!(
            c,
            Command::DeconfigureEni { .. }
        )),
        0
    );
    assert_eq!(
        (
            world.planner.totals().free,
            world.planner.totals().quarantined
        ),
        (18, 0)
    );
}

#[test]
fn one_list_without_a_free_address_only_quarantines_it() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    world.run(60);
    let mut list = world.listing();
    list[0].addresses.pop();
    world.send(Event::Inventory(list));
    assert_eq!(
        (
            world.planner.totals().free,
            world.planner.totals().quarantined
        ),
        (1, 1)
    );
    world.run(40);
    assert_eq!(
        world.planner.totals().quarantined,
        0,
        "the next list shows it"
    );
}

#[test]
fn an_address_with_a_pod_is_never_dropped_however_often_ec2_denies_it() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    let ticket = world.add(1);
    world.run(60);
    let address = world.granted[&ticket].1;
    let primary = world.enis.keys().next().unwrap().clone();
    world
        .enis
        .get_mut(&primary)
        .unwrap()
        .observed
        .addresses
        .retain(|other| *other != address);
    world.send(Event::Inventory(world.listing()));
    world.run(7200);
    assert!(world.planner.counters().describes >= 5);
    assert_eq!(world.planner.totals().quarantined, 1);
    let again = world.add(1);
    assert_eq!(world.granted[&again].1, address);
}

#[test]
fn a_list_older_than_an_assign_does_not_put_its_addresses_in_doubt() {
    let mut world = World::new("m5.large", ip_targets(2, 2));
    world.run(60);
    let old = world.listing();
    world.add(1);
    world.run(2);
    world.send(Event::Inventory(old));
    assert_eq!(
        (
            world.planner.totals().free,
            world.planner.totals().quarantined
        ),
        (2, 0)
    );
}

#[test]
fn a_list_that_still_shows_what_was_given_back_is_stale() {
    let mut world = World::new("m5.large", ip_targets(1, 1));
    for n in 0..5 {
        world.add(n);
    }
    world.run(10);
    for n in 0..5 {
        world.left(n);
    }
    let old = world.listing();
    while world.planner.counters().unassigns == 0 {
        world.run(1);
    }
    world.run(2);
    world.send(Event::Inventory(old));
    assert_eq!(world.planner.totals().free, 1);
}
