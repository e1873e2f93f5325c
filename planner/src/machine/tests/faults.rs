//! Every class of failure, and the rows of the fault model that concern the planner (ec2-and-faults §7): refusals and
//! ambiguous results.

mod lost;
mod refusals;

use super::world::{Fault, World};
use crate::{Class, Command, Config, Event, gate::Action};

fn ip_targets(warm: u32, minimum: u32) -> Config {
    Config {
        warm_ip_target: Some(warm),
        minimum_ip_target: Some(minimum),
        ..Config::upstream()
    }
}

fn denied(action: &str) -> Fault {
    Fault::Refuse(Class::Denied {
        action: action.into(),
        why: None,
    })
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

/// A full node whose next pod needs a second ENI, and gets its address in spite of these faults.
fn served_in_spite_of(action: Action, faults: impl IntoIterator<Item = Fault>) -> World {
    let mut world = full();
    world.fault(action, faults);
    let ticket = world.add(9);
    world.run(10);
    assert!(world.granted.contains_key(&ticket));
    world
}
