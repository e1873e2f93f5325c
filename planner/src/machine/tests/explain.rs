//! Tests of the planner's explanations.

use super::world::{Fault, World};
use crate::{Class, Config, gate::Action, machine::grow::GATHER, snapshot::Verdict};

fn world(config: Config) -> World {
    World::new("m5.large", config)
}

fn told(world: &World) -> (Verdict, String) {
    let decision = world.planner.snapshot(world.now).decision;
    (decision.verdict, decision.why)
}

fn warm(n: u32) -> Config {
    Config {
        warm_ip_target: Some(n),
        ..Config::default()
    }
}

#[test]
fn a_pool_as_wanted_rests() {
    let world = world(warm(3));
    assert_eq!(
        told(&world),
        (Verdict::Rest, "3 free; 3 wanted free".into())
    );
}

#[test]
fn pending_commands_are_listed_as_calls() {
    let mut world = world(warm(3));
    world.add(1);
    world.run(0);
    world.now = world.now + GATHER;
    world.send(crate::Event::Tick);
    let snapshot = world.planner.snapshot(world.now);
    assert_eq!(snapshot.decision.verdict, Verdict::Wait);
    assert_eq!(snapshot.calls.len(), 1);
    assert_eq!(snapshot.calls[0].action, "AssignPrivateIpAddresses");
    assert!(snapshot.calls[0].eni.is_some());
}

#[test]
fn an_obstacle_is_named() {
    let mut world = world(warm(3));
    let denied = || {
        Fault::Refuse(Class::Denied {
            action: "ec2:AssignPrivateIpAddresses".into(),
            why: None,
        })
    };
    for action in [Action::Assign, Action::Create] {
        world.fault(action, (0..9).map(|_| denied()));
    }
    world.add(1);
    world.run(5);
    let (verdict, why) = told(&world);
    assert_eq!(verdict, Verdict::Wait);
    assert!(
        why.contains("1 addresses are missing")
            && why.contains("IAM denies ec2:AssignPrivateIpAddresses"),
        "{why}"
    );
}

#[test]
fn a_waiting_pod_has_a_cause() {
    let mut world = world(warm(1));
    world.left = 0;
    world.add(1);
    world.add(2);
    world.run(3);
    let snapshot = world.planner.snapshot(world.now);
    let [waiting] = &snapshot.waiting[..] else {
        panic!("{:?}", snapshot.waiting)
    };
    assert!(
        waiting
            .cause
            .to_string()
            .contains("subnet-1 has had no free address"),
        "{waiting:?}"
    );
}

#[test]
fn a_full_node_does_nothing_and_explains_why() {
    let mut world = world(warm(3));
    for n in 0..27 {
        world.add(n);
        world.run(10);
    }
    let (verdict, why) = told(&world);
    assert_eq!(verdict, Verdict::Rest);
    assert!(why.contains("3 ENIs × (10 − 1) addresses"), "{why}");
}
