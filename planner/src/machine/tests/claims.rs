//! Addresses that the host keeps from pods: an agent, a VIP manager or DHCP configured them on the node, or a rule of
//! another program decides the way of their packets.

use std::net::IpAddr;

use ipnet::IpNet;

use super::world::{World, sandbox};
use crate::{
    Command, Config, Event, HostClaim,
    snapshot::{AddressState, AddressView},
};

/// A node with nine addresses on its primary ENI, and a spare ENI.
fn node() -> World {
    let mut world = World::new("m5.large", Config::upstream());
    world.run(60);
    world
}

fn view(world: &World, address: IpAddr) -> AddressView {
    let snapshot = world.planner.snapshot(world.now);
    let mut all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    all.find(|view| view.address == address)
        .expect("it is ours")
}

fn own_claim(net: impl Into<IpNet>) -> Event {
    Event::HostClaims(vec![(net.into(), HostClaim::Own)])
}

fn free(world: &World) -> Vec<IpAddr> {
    let snapshot = world.planner.snapshot(world.now);
    let all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    let free = all.filter(|view| view.state == AddressState::Free);
    free.map(|view| view.address).collect()
}

#[test]
fn an_address_of_the_node_itself_is_not_granted_until_the_node_drops_it() {
    let mut world = node();
    let own = free(&world)[0];
    world.send(own_claim(own));
    assert_eq!(view(&world, own).state, AddressState::Quarantined);
    assert_eq!(view(&world, own).claim, Some(HostClaim::Own));
    assert_eq!(world.planner.totals().claimed, 1);
    for n in 0..18 {
        world.add(n);
    }
    world.run(60);
    assert_eq!(world.live.len(), 18, "the other addresses serve");
    assert!(world.live.values().all(|address| *address != own));

    world.send(Event::HostClaims(Vec::new()));
    assert_eq!(view(&world, own).state, AddressState::Free);
    assert_eq!(world.planner.totals().claimed, 0);
}

#[test]
fn an_address_that_a_rule_of_others_decides_for_is_not_granted_until_the_rule_is_gone() {
    let mut world = node();
    let steered = free(&world)[0];
    let rule = HostClaim::Rule { priority: 512 };
    let both = vec![
        (IpNet::from(steered), HostClaim::Own),
        (IpNet::from(steered), rule),
    ];
    world.send(Event::HostClaims(both));
    assert_eq!(view(&world, steered).claim, Some(HostClaim::Own));
    world.send(Event::HostClaims(vec![(steered.into(), rule)]));
    let seen = view(&world, steered);
    assert_eq!(
        (seen.state, seen.claim),
        (AddressState::Quarantined, Some(rule))
    );
    let ticket = (0..27).map(|n| world.add_within(n, 5)).last();
    world.run(60);
    assert!(!ticket.is_some_and(|ticket| world.granted.contains_key(&ticket)));
    assert!(world.live.values().all(|address| *address != steered));
    let refusals = format!("{:?}", world.log);
    assert!(
        refusals.contains("1 addresses are kept from pods by the host"),
        "{refusals}"
    );

    world.send(Event::HostClaims(Vec::new()));
    assert_eq!(view(&world, steered).state, AddressState::Free);
}

#[test]
fn an_address_that_becomes_the_nodes_under_a_pod_keeps_the_pod_and_gets_no_other() {
    let mut world = node();
    world.add(0);
    let own = world.live[&sandbox(0)];
    world.send(own_claim(own));
    let seen = view(&world, own);
    assert_eq!(
        (seen.state, seen.claim),
        (AddressState::Assigned, Some(HostClaim::Own))
    );
    world.left(0);
    world.run(120);
    assert_eq!(view(&world, own).state, AddressState::Quarantined);
}

#[test]
fn a_whole_network_of_the_node_is_not_granted() {
    let mut world = node();
    let own: IpNet = "0.0.0.0/0".parse().unwrap();
    world.send(own_claim(own));
    assert_eq!(free(&world), Vec::<IpAddr>::new());
    let ticket = world.add_within(0, 5);
    world.run(10);
    assert!(!world.granted.contains_key(&ticket));
}

#[test]
fn what_the_node_itself_uses_is_not_given_back_to_ec2() {
    let config = Config {
        warm_ip_target: Some(1),
        minimum_ip_target: Some(1),
        ..Config::upstream()
    };
    let mut world = World::new("m5.large", config);
    for n in 0..5 {
        world.add(n);
    }
    world.run(60);
    let own = world.live[&sandbox(0)];
    world.send(own_claim(own));
    for n in 0..5 {
        world.left(n);
    }
    world.run(7200);
    let given = |command: &Command| matches!(command, Command::Unassign { addresses, .. } if addresses.contains(&own));
    assert!(!world.log.iter().any(given));
    assert_eq!(view(&world, own).state, AddressState::Quarantined);
}

#[test]
fn an_address_of_an_ipv6_prefix_is_skipped_although_it_is_not_listed() {
    let config = Config {
        family: crate::Family::V6,
        prefix_delegation: true,
        ..Config::upstream()
    };
    let mut world = World::new("m5.large", config);
    world.run(60);
    let first = free(&world)[0];
    let prefix = IpNet::new(first, 123).unwrap().trunc();
    // Sixteen addresses are listed; the node uses these and sixteen more.
    world.send(own_claim(prefix));
    world.add(0);
    let granted = world.live[&sandbox(0)];
    assert!(!prefix.contains(&granted), "{granted} is in {prefix}");
}
