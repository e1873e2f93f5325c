//! The fabric in IPv6: delivery and the source check, in addition to IPv4 on the same links.

use std::net::Ipv6Addr;

use vpc_sim::{
    Instance, LaunchInstance, Sim, SimConfig,
    fabric::INTERNET_ADDRESS_V6,
    world::request::{Attribute, Pick},
};

use crate::{
    Outcome, interface,
    net::{sends, socket_at, take_address},
};

fn start() -> Result<(Sim, [Instance; 2]), Box<dyn std::error::Error>> {
    let sim = Sim::start(SimConfig::dual_stack())?;
    let launch = || LaunchInstance {
        ipv6: Pick::Count(1),
        ..LaunchInstance::default()
    };
    let pair = [
        sim.launch_instance(launch())?,
        sim.launch_instance(launch())?,
    ];
    Ok((sim, pair))
}

fn own(node: &Instance) -> Ipv6Addr {
    node.ipv6.expect("launched with an IPv6 address")
}

/// A /80 prefix for the node, and an address in it that the node's link uses.
fn prefix_member(sim: &Sim, node: &Instance) -> Result<Ipv6Addr, Box<dyn std::error::Error>> {
    let one = Pick::PrefixCount(1);
    sim.world()
        .assign_ipv6_addresses(&node.eni, &one, sim.now())?;
    sim.settle()?;
    let prefix = interface(&sim.world(), &node.eni).ipv6_prefixes[0];
    let member = Ipv6Addr::from(u128::from(prefix.network()) + 0xabcd);
    take_address(&node.netns, "eth0", member)?;
    Ok(member)
}

pub fn nodes_reach_each_other_and_the_internet_in_ipv6() -> Outcome {
    let (sim, [a, b]) = start()?;
    for (from, at, to, address) in [
        (&a.netns, own(&a), &b.netns, own(&b)),
        (&b.netns, own(&b), &a.netns, own(&a)),
        (&a.netns, own(&a), sim.internet(), INTERNET_ADDRESS_V6),
        (sim.internet(), INTERNET_ADDRESS_V6, &a.netns, own(&a)),
    ] {
        let (sender, receiver) = (socket_at(from, at)?, socket_at(to, address)?);
        assert!(sends(&sender, &receiver, b"hello")?, "{at} to {address}");
    }
    Ok(())
}

pub fn every_member_of_an_ipv6_prefix_is_delivered_until_it_is_unassigned() -> Outcome {
    let (sim, [a, b]) = start()?;
    let member = prefix_member(&sim, &a)?;
    let (from, receiver) = (socket_at(&b.netns, own(&b))?, socket_at(&a.netns, member)?);
    assert!(sends(&from, &receiver, b"prefix")?);
    assert!(sends(&receiver, &from, b"and back")?);
    let prefixes = interface(&sim.world(), &a.eni).ipv6_prefixes;
    sim.world()
        .unassign_ipv6_addresses(&a.eni, &[], &prefixes, sim.now())?;
    sim.settle()?;
    from.send_to(b"too late", receiver.local_addr()?)?;
    assert!(sends(&from, &socket_at(&a.netns, own(&a))?, b"marker")?);
    receiver.set_nonblocking(true)?;
    assert!(receiver.recv(&mut [0; 16]).is_err(), "still delivered");
    Ok(())
}

pub fn an_ipv6_source_that_the_interface_does_not_own_is_dropped() -> Outcome {
    let (sim, [a, b]) = start()?;
    let receiver = socket_at(&b.netns, own(&b))?;
    let free = Ipv6Addr::from(u128::from(own(&a)) ^ 0xff00);
    for forged in [prefix_member(&sim, &b)?, free, INTERNET_ADDRESS_V6] {
        take_address(&a.netns, "lo", forged)?;
        socket_at(&a.netns, forged)?.send_to(b"forged", receiver.local_addr()?)?;
        // Fails if the forged packet arrives first.
        let honest = socket_at(&a.netns, own(&a))?;
        assert!(sends(&honest, &receiver, b"own")?, "{forged} got through");
    }
    sim.world()
        .modify_network_interface(&a.eni, Attribute::SourceDestCheck(false), sim.now())?;
    sim.settle()?;
    let relayed = socket_at(&a.netns, free)?;
    assert!(sends(&relayed, &receiver, b"relayed")?, "the check is off");
    Ok(())
}
