//! Addresses that the kernel takes for the node's own: an agent, a VIP manager or DHCP configured them.

use std::net::IpAddr;

use ipnet::IpNet;

use super::world::{World, sandbox};
use crate::{
    Command, Config, Event,
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
    world.send(Event::HostAddresses(vec![IpNet::from(own)]));
    assert_eq!(view(&world, own).state, AddressState::Quarantined);
    assert!(view(&world, own).hosted);
    assert_eq!(world.planner.totals().hosted, 1);
    for n in 0..18 {
        world.add(n);
    }
    world.run(60);
    assert_eq!(world.live.len(), 18, "the other addresses serve");
    assert!(world.live.values().all(|address| *address != own));

    world.send(Event::HostAddresses(Vec::new()));
    assert_eq!(view(&world, own).state, AddressState::Free);
    assert_eq!(world.planner.totals().hosted, 0);
}

#[test]
fn an_address_that_becomes_the_nodes_under_a_pod_keeps_the_pod_and_gets_no_other() {
    let mut world = node();
    world.add(0);
    let own = world.live[&sandbox(0)];
    world.send(Event::HostAddresses(vec![IpNet::from(own)]));
    let seen = view(&world, own);
    assert_eq!((seen.state, seen.hosted), (AddressState::Assigned, true));
    world.left(0);
    world.run(120);
    assert_eq!(view(&world, own).state, AddressState::Quarantined);
}

#[test]
fn a_whole_network_of_the_node_is_not_granted() {
    let mut world = node();
    let own: IpNet = "0.0.0.0/0".parse().unwrap();
    world.send(Event::HostAddresses(vec![own]));
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
    world.send(Event::HostAddresses(vec![IpNet::from(own)]));
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
    world.send(Event::HostAddresses(vec![prefix]));
    world.add(0);
    let granted = world.live[&sandbox(0)];
    assert!(!prefix.contains(&granted), "{granted} is in {prefix}");
}
