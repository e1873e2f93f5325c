//! What a pod is reported to have waited for when it gets its address.

use std::time::Duration;

use super::world::{Fault, World};
use crate::{Amount, Class, Command, Config, Obstacle, Rest, Ticket, gate::Action};

/// No warm target is set, and the primary ENI has these addresses.
fn holding(addresses: u16, config: Config) -> World {
    let mut world = World::bare(
        "m5.large",
        Config {
            warm_eni_target: Some(0),
            ..config
        },
    );
    let primary = world.enis.keys().next().unwrap().clone();
    world.give(&primary, Amount::Addresses(addresses));
    world.start();
    world
}

fn waited_for(world: &World, asked: Ticket) -> Option<Obstacle> {
    let mut grants = world.log.iter().filter_map(|command| match command {
        Command::Grant {
            ticket, waited_for, ..
        } if *ticket == asked => Some(*waited_for),
        _ => None,
    });
    grants
        .next()
        .unwrap_or_else(|| panic!("not granted: {:?}", world.refused))
}

#[test]
fn no_pod_waits_while_an_address_is_free() {
    let mut world = holding(1, Config::upstream());
    let ticket = world.add(0);
    assert_eq!(waited_for(&world, ticket), None);
}

#[test]
fn growth_is_reported_by_its_first_step() {
    let mut world = holding(1, Config::upstream());
    world.add(0);
    let assigned = world.add(1);
    world.run(10);
    assert_eq!(waited_for(&world, assigned), Some(Obstacle::Assign));

    let mut world = holding(9, Config::upstream());
    for n in 0..9 {
        world.add(n);
    }
    let created = world.add(9);
    world.run(10);
    assert_eq!(waited_for(&world, created), Some(Obstacle::Create));
}

#[test]
fn a_pod_that_joins_growth_late_has_waited_for_the_remaining_steps() {
    let mut world = holding(9, Config::upstream());
    for n in 0..10 {
        world.add(n);
    }
    // Create, attach and configure take half a second each.
    world.run(1);
    let late = world.add(10);
    world.run(10);
    let seen = waited_for(&world, late);
    assert!(
        matches!(seen, Some(Obstacle::Attach | Obstacle::Configure)),
        "{seen:?}"
    );
}

#[test]
fn cooling_addresses_are_reported_if_the_pool_must_not_grow() {
    let config = Config {
        provisioning: false,
        cooldown: Duration::from_secs(30),
        ..Config::upstream()
    };
    let mut world = holding(1, config);
    world.add(0);
    world.left(0);
    let ticket = world.add(1);
    world.run(40);
    assert_eq!(waited_for(&world, ticket), Some(Obstacle::Cooling));
}

#[test]
fn an_ec2_refusal_is_reported_although_the_pod_gets_an_address() {
    let denied = Class::Denied {
        action: "ec2:CreateNetworkInterface".into(),
        why: None,
    };
    let exhausted = Class::Exhausted;
    for (class, obstacle) in [
        (Class::Throttled { retry_after: None }, Obstacle::Throttled),
        (denied, Obstacle::Denied),
        (Class::Refused(Rest::Long), Obstacle::Refused),
        (exhausted, Obstacle::SubnetExhausted),
        (Class::Transient, Obstacle::Unreachable),
    ] {
        let mut world = holding(9, Config::upstream());
        // The request to a subnet is halved several times before the subnet counts as exhausted.
        world.fault(Action::Create, vec![Fault::Refuse(class); 5]);
        for n in 0..9 {
            world.add(n);
        }
        let ticket = world.add_within(9, 600);
        world.run(600);
        assert_eq!(waited_for(&world, ticket), Some(obstacle));
    }
}
