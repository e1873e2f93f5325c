//! Answers that are lost, late or contradictory: nothing is done twice, and nothing is forgotten.

use std::time::Duration;

use super::{count, denied, full, ip_targets, many, served_in_spite_of};
use crate::{
    Amount, Class, Command, Config, Event, Refusal,
    gate::Action,
    machine::tests::world::{Fault, World},
    snapshot::Phase,
};

/// Row 1.
#[test]
fn a_lost_create_is_repeated_with_its_token_and_makes_one_eni() {
    let world = served_in_spite_of(Action::Create, [Fault::LoseReply]);
    assert_eq!((world.enis.len(), world.attached()), (2, 2));
    assert_eq!(world.planner.counters().describes, 1);
}

/// Row 1, while EC2's list does not contain it yet.
#[test]
fn a_lost_create_that_was_not_done_is_repeated_with_its_token() {
    let world = served_in_spite_of(Action::Create, [Fault::Refuse(Class::Ambiguous)]);
    let tokens = world.log.iter().filter_map(|c| match c {
        Command::CreateEni { token, .. } => Some(token.clone()),
        _ => None,
    });
    let tokens: Vec<_> = tokens.collect();
    assert!(tokens.len() == 2 && tokens[0] == tokens[1], "{tokens:?}");
}

/// Row 2.
#[test]
fn a_loose_eni_of_ours_is_deleted_if_unwanted_and_attached_if_wanted() {
    let mut world = World::bare("m5.large", ip_targets(0, 1));
    world.create(Amount::Addresses(3));
    world.start();
    assert_eq!(
        (world.enis.len(), world.attached()),
        (2, 2),
        "one address is wanted, and it has three"
    );

    let mut world = World::bare(
        "m5.large",
        Config {
            provisioning: true,
            ..ip_targets(0, 1)
        },
    );
    let primary = world.enis.keys().next().unwrap().clone();
    world.give(&primary, Amount::Addresses(2));
    world.send(Event::Inventory(world.listing()));
    world.run(5);
    world.create(Amount::Addresses(3));
    world.send(Event::Inventory(world.listing()));
    world.run(10);
    assert_eq!((world.enis.len(), world.attached()), (1, 1));
}

/// Row 3.
#[test]
fn a_lost_attach_is_looked_up_before_it_is_repeated() {
    let world = served_in_spite_of(Action::Attach, [Fault::LoseReply]);
    assert_eq!(world.planner.counters().attaches, 1);
}

/// Row 4.
#[test]
fn an_occupied_device_number_is_passed_over() {
    let mut world = full();
    let foreign = world.foreign(1, false);
    world.enis.get_mut(&foreign).unwrap().observed.managed = false;
    let ticket = world.add(9);
    world.run(20);
    assert!(
        world.granted.contains_key(&ticket),
        "{:?}",
        world.planner.snapshot(world.now).enis
    );
}

/// Row 8.
#[test]
fn a_lost_assign_is_never_repeated_blindly() {
    let mut world = World::bare("m5.large", ip_targets(3, 0));
    world.fault(Action::Assign, [Fault::LoseReply]);
    world.start();
    assert_eq!(world.planner.totals().free, 3);
    assert_eq!(
        (
            world.planner.counters().assigns,
            world.planner.counters().describes
        ),
        (1, 2),
        "one list at once, and one that cannot be too old to show it"
    );
}

/// Rows 5 and 21, and W31: a hanging call has its own deadline and does not block others.
#[test]
fn a_call_without_an_answer_blocks_no_other_call() {
    let mut world = full();
    world.fault(Action::Attach, [Fault::Silence]);
    let ticket = world.add(9);
    world.run(30);
    assert!(
        world.granted.contains_key(&ticket),
        "the second ENI takes over after twenty seconds"
    );
    world.run(300);
    let phases: Vec<_> = world
        .planner
        .snapshot(world.now)
        .enis
        .iter()
        .map(|eni| eni.phase)
        .collect();
    assert!(
        phases.iter().all(|phase| *phase == Phase::Ready),
        "the silent one was found attached: {phases:?}"
    );
}

#[test]
fn no_growth_before_ec2_has_listed_the_enis() {
    let mut world = World::bare("m5.large", Config::upstream());
    let ticket = world.add_within(1, 10);
    world.run(10);
    assert_eq!(world.calls_since(0).len(), 0);
    assert!(matches!(
        world.refused[&ticket],
        Refusal::Unreachable { .. }
    ));
}

#[test]
fn an_answer_after_its_deadline_makes_us_look() {
    let mut world = World::bare("m5.large", ip_targets(3, 0));
    world.latency = Duration::from_secs(45);
    world.start();
    world.latency = Duration::from_millis(500);
    world.run(300);
    let held: usize = world
        .enis
        .values()
        .map(|eni| eni.observed.addresses.len())
        .sum();
    let totals = world.planner.totals();
    assert_eq!(
        usize::try_from(totals.free + totals.quarantined).unwrap(),
        held,
        "our books agree with EC2's"
    );
}

/// I9: a doubt is checked at once, and then at growing intervals.
#[test]
fn a_permanent_doubt_causes_no_busy_loop() {
    for action in [Action::Assign, Action::Create, Action::Attach] {
        let mut world = World::bare(
            "m5.large",
            Config {
                warm_eni_target: Some(3),
                ..Config::upstream()
            },
        );
        world.fault(action, many(&Fault::Refuse(Class::Ambiguous)));
        world.latency = Duration::from_millis(50);
        world.start();
        let from = world.log.len();
        world.run(600);
        let calls = world.calls_since(from).len();
        assert!(calls < 200, "{action:?}: {calls} calls in ten minutes");
    }
}

/// Found by the simulation: EC2 may not find a new ENI for a moment. It was treated as gone and never deleted.
#[test]
fn a_new_eni_that_is_not_found_is_kept() {
    let mut world = full();
    world.fault(Action::Attach, [Fault::Refuse(Class::Limit)]);
    world.fault(Action::Delete, [Fault::Refuse(Class::NotFound)]);
    world.add_within(9, 5);
    world.run(120);
    let loose = world
        .enis
        .values()
        .filter(|eni| eni.observed.attached.is_none())
        .count();
    assert_eq!(loose, 0);
}

/// Found by the simulation: a list that was requested during a Create contained the new ENI, which was still unknown.
/// It was deleted as a leak before the answer to Create arrived.
#[test]
fn a_list_does_not_delete_what_a_create_under_way_has_made() {
    let mut world = full();
    world.fault(Action::Create, [Fault::Silence]);
    world.add_within(9, 25);
    world.run(2);
    let list = world.listing();
    assert!(list.iter().any(|eni| eni.attached.is_none()));
    let from = world.log.len();
    world.send(Event::Inventory(list));
    world.run(5);
    let deleted = |c: &Command| matches!(c, Command::DeleteEni { .. });
    assert_eq!(count(&world, from, deleted), 0);
}

/// Found by the simulation: the daemon's first list contains only attached ENIs, and may arrive late. An ENI that was
/// to be deleted was not in it and was treated as gone.
#[test]
fn a_list_of_what_is_attached_does_not_forget_what_is_to_be_deleted() {
    let mut world = full();
    world.fault(Action::Attach, [Fault::Refuse(Class::Limit)]);
    world.fault(
        Action::Delete,
        vec![denied("ec2:DeleteNetworkInterface"); 2],
    );
    world.add_within(9, 5);
    world.run(90);
    let attached = world.listing();
    let attached = attached.into_iter().filter(|eni| eni.attached.is_some());
    let list = attached.collect();
    world.send(Event::Inventory(list));
    world.run(600);
    let loose = world
        .enis
        .values()
        .filter(|eni| eni.observed.attached.is_none())
        .count();
    assert_eq!(loose, 0);
}
