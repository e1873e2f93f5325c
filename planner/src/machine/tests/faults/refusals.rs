//! What EC2 refuses, and failures of links. Each is reported to waiting pods, pauses only its own kind of call, and is
//! tried again.

use std::time::Duration;

use super::{count, denied, full, ip_targets, many, served_in_spite_of};
use crate::{
    Amount, Class, Command, Config, Event, Refusal, Rest, SubnetId,
    gate::Action,
    machine::tests::world::{Fault, World},
};

fn throttled() -> Fault {
    Fault::Refuse(Class::Throttled { retry_after: None })
}

/// A node with prefix delegation in a subnet without a free /28.
fn in_a_fragmented_subnet() -> World {
    let config = Config {
        prefix_delegation: true,
        ..ip_targets(4, 0)
    };
    let mut world = World::bare("m5.large", config);
    world.fragmented = true;
    world.start();
    world
}

fn subnet() -> SubnetId {
    "subnet-1".into()
}

/// Row 6.
#[test]
fn an_unknown_foreign_eni_makes_ec2_refuse_and_the_pool_learn() {
    let mut world = full();
    world.foreign(1, false);
    world.foreign(2, false);
    let ticket = world.add(9);
    world.run(30);
    assert!(
        matches!(world.refused[&ticket], Refusal::EniLimit { .. }),
        "{:?}",
        world.refused
    );
    assert_eq!(
        world.enis.len(),
        3,
        "the ENI that found no place is deleted"
    );
    let from = world.log.len();
    world.run(600);
    assert_eq!(
        count(&world, from, |c| matches!(c, Command::CreateEni { .. })),
        0
    );
}

/// Row 7.
#[test]
fn a_failed_delete_on_termination_harms_no_pod_and_is_tried_again() {
    let mut world = served_in_spite_of(Action::Modify, vec![Fault::Refuse(Class::NotFound); 3]);
    world.run(600);
    assert_eq!(world.planner.counters().modifies, 4);
}

/// Row 10.
#[test]
fn an_eni_limit_that_we_did_not_know_of_is_read_from_ec2() {
    let mut world = World::new("m5.large", ip_targets(3, 0));
    let primary = world.enis.keys().next().unwrap().clone();
    world.give(&primary, Amount::Addresses(5));
    for n in 0..3 {
        world.add(n);
    }
    world.run(5);
    assert_eq!(
        world.planner.totals().free,
        5,
        "the five that somebody else put there are adopted"
    );
}

/// Row 11.
#[test]
fn fragments_serve_single_addresses_and_prefixes_return_later() {
    let mut world = in_a_fragmented_subnet();
    assert_eq!(
        (world.planner.totals().prefixes, world.planner.totals().free),
        (0, 4)
    );
    world.fragmented = false;
    world.run(700);
    for n in 0..7 {
        world.add(n);
    }
    world.run(10);
    assert_eq!(world.planner.totals().prefixes, 1);
}

/// Row 12.
#[test]
fn an_exhausted_subnet_is_named_and_tried_less_and_less_often() {
    let mut world = World::bare("m5.large", ip_targets(2, 0));
    world.left = 0;
    world.start();
    let ticket = world.add_within(1, 30);
    world.run(40);
    match &world.refused[&ticket] {
        Refusal::Exhausted {
            subnet: named,
            retry_in,
            ..
        } => {
            assert_eq!(*named, subnet());
            assert!(*retry_in <= Duration::from_secs(120));
        }
        other => panic!("{other:?}"),
    }
    let from = world.log.len();
    world.run(3600);
    let calls = world.calls_since(from).len();
    assert!(
        (30..=70).contains(&calls),
        "one call per one to two minutes, not {calls} in an hour"
    );
    world.left = 100;
    world.run(150);
    assert_eq!(world.planner.totals().free, 2);
}

#[test]
fn a_scarce_subnet_assigns_what_it_has() {
    let mut world = World::bare("m5.large", Config::upstream());
    world.left = 5;
    world.start();
    assert_eq!(world.planner.totals().free, 5, "nine were asked for");
}

/// Row 13.
#[test]
fn throttling_is_waited_out_and_free_addresses_are_assigned() {
    let mut world = World::new("m5.large", Config::upstream());
    world.fault(Action::Create, many(&throttled()));
    world.fault(Action::Assign, many(&throttled()));
    let tickets: Vec<_> = (0..9).map(|n| world.add(n)).collect();
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
    let waits = world.add(9);
    let from = world.log.len();
    world.run(600);
    assert!(matches!(world.refused[&waits], Refusal::Throttled { .. }));
    assert!(
        world.calls_since(from).len() < 40,
        "{}",
        world.calls_since(from).len()
    );
    world.faults.clear();
    let later = world.add(10);
    world.run(70);
    assert!(world.granted.contains_key(&later) || world.refused.contains_key(&later));
    let last = world.add(11);
    world.run(10);
    assert!(world.granted.contains_key(&last));
}

/// Row 14.
#[test]
fn a_denied_action_is_the_cause_and_rests_alone() {
    let mut world = full();
    world.fault(Action::Create, many(&denied("ec2:CreateNetworkInterface")));
    let ticket = world.add(9);
    world.run(61);
    assert_eq!(
        world.refused[&ticket],
        Refusal::Denied {
            action: "ec2:CreateNetworkInterface".into(),
            why: None,
        }
    );
    let from = world.log.len();
    world.add(10);
    world.run(600);
    // Four per minute while the pod waits, then fewer and fewer.
    assert!(count(&world, from, |c| matches!(c, Command::CreateEni { .. })) <= 9);
}

#[test]
fn a_denied_unassign_does_not_stop_growth() {
    let denied = denied("ec2:UnassignPrivateIpAddresses");
    for fault in [denied, refused(Rest::Long), refused(Rest::Short)] {
        an_unassign_fails_with(&fault);
    }
}

fn an_unassign_fails_with(fault: &Fault) {
    let mut world = World::new("m5.large", ip_targets(1, 3));
    world.fault(Action::Unassign, many(fault));
    for n in 0..5 {
        world.add(n);
    }
    world.run(5);
    for n in 0..5 {
        world.left(n);
    }
    world.run(200);
    assert!(
        world.planner.totals().free >= 5,
        "the addresses that EC2 would not take are usable again"
    );
    let tickets: Vec<_> = (10..20).map(|n| world.add(n)).collect();
    world.run(10);
    assert!(
        tickets
            .iter()
            .all(|ticket| world.granted.contains_key(ticket))
    );
}

fn refused(rest: Rest) -> Fault {
    Fault::Refuse(Class::Refused(rest))
}

#[test]
fn what_ec2_refuses_is_named_rests_alone_and_resumes_soon_after_its_cause_is_gone() {
    let mut world = full();
    world.fault(Action::Create, many(&refused(Rest::Long)));
    let ticket = world.add_within(9, 40);
    world.run(40);
    let Refusal::Refused { retry_in, .. } = &world.refused[&ticket] else {
        panic!("{:?}", world.refused)
    };
    assert!(*retry_in <= Duration::from_secs(15), "while a pod waits");
    let snapshot = world.planner.snapshot(world.now);
    let told: Vec<_> = snapshot.refused.iter().map(|view| view.action).collect();
    assert_eq!(told, ["CreateNetworkInterface"]);

    let from = world.log.len();
    world.add_within(9, 600);
    world.run(600);
    let tries = count(&world, from, |c| matches!(c, Command::CreateEni { .. }));
    assert!(
        (30..=90).contains(&tries),
        "{tries} in ten minutes with a pod"
    );

    world.faults.clear();
    let waits = world.add_within(10, 60);
    world.run(30);
    assert!(world.granted.contains_key(&waits));
    assert!(world.planner.snapshot(world.now).refused.is_empty());
}

#[test]
fn a_refusal_that_passes_by_itself_costs_seconds() {
    served_in_spite_of(Action::Create, vec![refused(Rest::Short); 3]);
    served_in_spite_of(Action::Attach, vec![refused(Rest::Short); 3]);
}

/// The list shows which groups the primary ENI has by now.
#[test]
fn a_missing_security_group_rests_growth_and_asks_for_the_list() {
    let mut world = full();
    let asked = world.planner.counters().describes;
    world.fault(Action::Create, many(&Fault::Refuse(Class::NotFound)));
    let ticket = world.add_within(9, 20);
    world.run(20);
    assert!(
        matches!(world.refused[&ticket], Refusal::Refused { .. }),
        "{:?}",
        world.refused
    );
    assert!(world.planner.counters().describes > asked);
}

/// The reason may be in the ENI: another one gets a chance, and the refused one does not stay.
#[test]
fn an_eni_that_may_not_be_attached_is_replaced() {
    let mut world = full();
    world.fault(Action::Attach, vec![refused(Rest::Long); 5]);
    let ticket = world.add_within(9, 300);
    world.run(300);
    assert!(world.granted.contains_key(&ticket), "{:?}", world.refused);
    assert_eq!(world.planner.counters().deletes, 1);
    assert_eq!(world.enis.len(), 2);
}

/// Row 15.
#[test]
fn an_outage_is_named_and_survived() {
    let mut world = full();
    world.fault(Action::Create, vec![Fault::Refuse(Class::Transient); 8]);
    let ticket = world.add_within(9, 20);
    world.run(20);
    assert!(
        matches!(world.refused[&ticket], Refusal::Unreachable { .. }),
        "{:?}",
        world.refused
    );
    world.run(300);
    let ticket = world.add(10);
    world.run(60);
    assert!(world.granted.contains_key(&ticket));
}

#[test]
fn a_link_that_never_comes_costs_its_eni() {
    let mut world = full();
    world.fault(Action::Configure, vec![Fault::Refuse(Class::Host); 4]);
    world.add(9);
    world.run(300);
    let tickets = world.add(10);
    world.run(10);
    assert!(world.granted.contains_key(&tickets));
    assert_eq!(world.planner.counters().deletes, 1);
}

/// A container may have its link.
#[test]
fn an_eni_of_others_whose_link_never_comes_is_left_to_them() {
    let mut world = full();
    let id = world.foreign(1, true);
    world.enis.get_mut(&id).unwrap().observed.tagged_ours = false;
    world.fault(Action::Configure, vec![Fault::Refuse(Class::Host); 4]);
    let list = world.listing();
    world.send(Event::Inventory(list));
    world.run(600);
    assert!(world.enis[&id].observed.attached.is_some());
    let counters = world.planner.counters();
    assert_eq!((counters.detaches, counters.deletes), (0, 0));
    let list = world.listing();
    world.send(Event::Inventory(list));
    world.run(10);
    assert!(
        world.enis[&id].configured,
        "the next list is another chance"
    );
}

/// The last single addresses are returned when prefixes are available again.
#[test]
fn single_addresses_of_a_fragmented_subnet_are_returned() {
    let mut world = in_a_fragmented_subnet();
    world.fragmented = false;
    world.run(700);
    for n in 0..9 {
        world.add(n);
    }
    world.run(10);
    for n in 0..9 {
        world.left(n);
    }
    world.run(300);
    let totals = world.planner.totals();
    assert_eq!((totals.free, totals.prefixes, totals.enis), (16, 1, 1));
}

/// Found by the simulation: an Assign does not name a subnet, so its refusal does not either, and the closed gate
/// belonged to no subnet. The planner tried again at once, several times per second.
#[test]
fn an_assign_refused_by_an_unnamed_subnet_shuts_its_own_subnets_gate() {
    for class in [Class::Fragmented, Class::Exhausted] {
        let mut world = World::new(
            "m5.large",
            Config {
                prefix_delegation: matches!(class, Class::Fragmented),
                ..ip_targets(1, 0)
            },
        );
        world.fault(Action::Assign, many(&Fault::Refuse(class.clone())));
        world.fault(Action::Create, many(&Fault::Refuse(class)));
        let from = world.log.len();
        world.add(1);
        world.run(60);
        let calls = world.calls_since(from).len();
        assert!(calls <= 20, "{calls} calls in a minute");
    }
}

/// A waiting pod must not wait for the rest of a long back-off after its cause has ended.
#[test]
fn a_waiting_pod_is_served_soon_after_the_subnet_has_room_again() {
    let mut world = full();
    world.left = 0;
    for n in 0..6 {
        world.add_within(9, 55);
        world.run(60 + n);
    }
    world.left = 100;
    let ticket = world.add_within(9, 60);
    world.run(30);
    assert!(world.granted.contains_key(&ticket));
}

/// Found by the simulation: slots in use by others are known from a list, and no further call would have shown that
/// they had become free.
#[test]
fn slots_that_others_release_are_found_after_a_refusal() {
    let mut world = World::bare("t3.small", ip_targets(1, 0));
    let guests = [world.foreign(1, false), world.foreign(2, false)];
    world.start();
    for n in 0..3 {
        world.add(n);
        world.run(2);
    }
    let ticket = world.add(3);
    assert!(matches!(world.refused[&ticket], Refusal::EniLimit { .. }));
    for guest in guests {
        world.enis.remove(&guest);
    }
    world.run(30);
    let again = world.add(3);
    world.run(10);
    assert!(world.granted.contains_key(&again));
}
