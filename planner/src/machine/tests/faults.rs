//! Every class of failure, and the rows of the fault model that are the planner's (ec2-and-faults §7).

use std::time::Duration;

use super::world::{Fault, World};
use crate::{
    Amount, Class, Command, Config, Event, Refusal, SubnetId, gate::Action, snapshot::Phase,
};

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

fn throttled() -> Fault {
    Fault::Refuse(Class::Throttled { retry_after: None })
}

fn denied(action: &str) -> Fault {
    Fault::Refuse(Class::Denied {
        action: action.into(),
    })
}

fn subnet() -> SubnetId {
    "subnet-1".into()
}

fn many(fault: &Fault) -> Vec<Fault> {
    vec![fault.clone(); 1000]
}

fn count(world: &World, from: usize, f: fn(&Command) -> bool) -> usize {
    world.log[from..].iter().filter(|c| f(c)).count()
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
        world.send(Event::Tick);
        world.add(n);
    }
    world
}

fn attached(world: &World) -> usize {
    world
        .enis
        .values()
        .filter(|eni| eni.observed.attached.is_some())
        .count()
}

/// Row 1.
#[test]
fn a_lost_create_is_repeated_with_its_token_and_makes_one_eni() {
    let mut world = full();
    world.fault(Action::Create, [Fault::LoseReply]);
    let ticket = world.add(9);
    world.run(10);
    assert!(world.granted.contains_key(&ticket));
    assert_eq!((world.enis.len(), attached(&world)), (2, 2));
    assert_eq!(world.planner.counters().describes, 1);
}

/// Row 1, and EC2's list does not show it yet.
#[test]
fn a_lost_create_that_was_not_done_is_repeated_with_its_token() {
    let mut world = full();
    world.fault(Action::Create, [Fault::Refuse(Class::Ambiguous)]);
    let ticket = world.add(9);
    world.run(10);
    assert!(world.granted.contains_key(&ticket));
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
        (world.enis.len(), attached(&world)),
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
    assert_eq!((world.enis.len(), attached(&world)), (1, 1));
}

/// Row 3.
#[test]
fn a_lost_attach_is_looked_up_before_it_is_repeated() {
    let mut world = full();
    world.fault(Action::Attach, [Fault::LoseReply]);
    let ticket = world.add(9);
    world.run(10);
    assert!(world.granted.contains_key(&ticket));
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
    let mut world = full();
    world.fault(Action::Modify, vec![Fault::Refuse(Class::NotFound); 3]);
    let ticket = world.add(9);
    world.run(5);
    assert!(world.granted.contains_key(&ticket));
    world.run(600);
    assert_eq!(world.planner.counters().modifies, 4);
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
    let config = Config {
        prefix_delegation: true,
        ..ip_targets(4, 0)
    };
    let mut world = World::bare("m5.large", config);
    world.fragmented = true;
    world.start();
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
fn an_exhausted_subnet_is_named_and_asked_ever_less_often() {
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
fn a_scarce_subnet_gives_what_it_has() {
    let mut world = World::bare("m5.large", Config::upstream());
    world.left = 5;
    world.start();
    assert_eq!(world.planner.totals().free, 5, "nine were asked for");
}

/// Row 13.
#[test]
fn throttling_is_waited_out_and_warm_pods_go_on() {
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
            action: "ec2:CreateNetworkInterface".into()
        }
    );
    let from = world.log.len();
    world.add(10);
    world.run(600);
    // Four a minute while the pod waits, then ever fewer.
    assert!(count(&world, from, |c| matches!(c, Command::CreateEni { .. })) <= 9);
}

#[test]
fn a_denied_unassign_does_not_stop_growth() {
    let mut world = World::new("m5.large", ip_targets(1, 3));
    world.fault(
        Action::Unassign,
        many(&denied("ec2:UnassignPrivateIpAddresses")),
    );
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

/// Rows 5 and 21, and W31: what hangs has a deadline of its own and blocks nobody else.
#[test]
fn a_call_without_answer_blocks_nobody_else() {
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

#[test]
fn no_growth_before_ec2_told_what_is_attached() {
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

/// I9: doubt is looked into once, and then ever less often.
#[test]
fn doubt_for_ever_is_no_busy_loop() {
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

/// The last single addresses go once prefixes serve again.
#[test]
fn single_addresses_from_a_fragmented_time_are_given_back() {
    let config = Config {
        prefix_delegation: true,
        ..ip_targets(4, 0)
    };
    let mut world = World::bare("m5.large", config);
    world.fragmented = true;
    world.start();
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

/// Found by the simulation: an Assign names no subnet, so its refusal does not either, and the gate that was shut was
/// nobody's. The planner asked again at once, several times a second.
#[test]
fn an_assign_refused_by_an_unnamed_subnet_shuts_its_own_subnets_gate() {
    for class in [
        Class::Fragmented { subnet: "".into() },
        Class::Exhausted { subnet: "".into() },
    ] {
        let mut world = World::new(
            "m5.large",
            Config {
                prefix_delegation: matches!(class, Class::Fragmented { .. }),
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

/// Found by the simulation: EC2 may not find an ENI that it made a moment ago. Taken for "gone", it was never deleted.
#[test]
fn a_young_eni_that_is_not_found_is_not_forgotten() {
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

/// A cause that has passed must not cost a waiting pod the rest of a long back-off.
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

/// Found by the simulation: a list that was asked for while a create was under way showed the new ENI, which nobody
/// knew yet, so it was deleted as a leak before the create's answer claimed it.
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

/// Found by the simulation: the daemon's first question is only for what is attached, and its answer may come late. An
/// ENI on its way to be deleted is not in it, and was taken for gone.
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

/// Found by the simulation: slots that others hold are known from a list, and no call was left that would show them free.
#[test]
fn slots_that_others_let_go_of_are_found_by_those_who_were_refused() {
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
