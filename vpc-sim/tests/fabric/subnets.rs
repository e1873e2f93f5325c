//! Several subnets: interfaces in a second block of the VPC, and the router between them.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use vpc_sim::{
    Instance, LaunchInstance, Sim, SimConfig, SubnetConfig,
    fabric::INTERNET_ADDRESS,
    ids::EniId,
    world::request::{AttachNetworkInterface, CreateNetworkInterface},
};

use crate::{
    LIMIT, Outcome, interface, is_attached,
    net::{self, sends, socket_at},
};

const PODS: &str = "100.64.16.0/20";

fn start() -> Result<Sim, Box<dyn std::error::Error>> {
    let config = SimConfig::default()
        .with_block("100.64.0.0/16".parse()?)
        .with_subnet(SubnetConfig::new(PODS.parse()?, 'a'))
        .with_subnet(SubnetConfig::new("10.0.32.0/24".parse()?, 'b'));
    Ok(Sim::start(config)?)
}

/// A second interface of `node` in `subnet`, set up as a node would do it: its own route table, and a rule for packets
/// from it.
fn second(
    sim: &Sim,
    node: &Instance,
    subnet: &str,
) -> Result<(EniId, Ipv4Addr), Box<dyn std::error::Error>> {
    let cidr: Ipv4Net = subnet.parse()?;
    let eni = {
        let mut world = sim.world();
        let subnet = world.subnet_at(cidr).ok_or("no such subnet")?.id.clone();
        let create = CreateNetworkInterface::plain(subnet);
        let eni = world.create_network_interface(create, sim.now())?.id;
        let attach = AttachNetworkInterface {
            eni: eni.clone(),
            instance: node.id.clone(),
            card: 0,
            device: 1,
        };
        world.attach_network_interface(&attach, sim.now())?;
        eni
    };
    assert!(sim.wait_until(LIMIT, |w| is_attached(w, &eni)));
    let address = interface(&sim.world(), &eni)
        .primary()
        .ok_or("no address")?;
    let gateway = gateway(cidr);
    let script = format!(
        "ip addr add {address}/32 dev eth1; ip route add {gateway} dev eth1 table 7; \
         ip route add default via {gateway} dev eth1 table 7; ip rule add from {address} lookup 7"
    );
    net::up(&node.netns, "eth1")?;
    net::shell(&node.netns, &script)?;
    sim.settle()?;
    Ok((eni, address))
}

fn gateway(cidr: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from_bits(cidr.network().to_bits() + 1)
}

pub fn a_second_block_is_inside_the_vpc() -> Outcome {
    let sim = start()?;
    let (a, b) = crate::pair(&sim)?;
    let (_, pods) = second(&sim, &a, PODS)?;
    assert!(PODS.parse::<Ipv4Net>()?.contains(&pods));
    let far = sim
        .world()
        .subnet_at("10.0.32.0/24".parse()?)
        .map(|s| s.id.clone());
    let far = sim.launch_instance(LaunchInstance {
        subnet: far,
        ..LaunchInstance::default()
    })?;
    let from = socket_at(&a.netns, pods)?;
    for (netns, address) in [
        (&b.netns, b.address),
        (&far.netns, far.address),
        (&a.netns, a.address),
        (sim.internet(), INTERNET_ADDRESS),
    ] {
        let other = socket_at(netns, address)?;
        // Nothing is translated: `sends` compares the sender too.
        assert!(sends(&from, &other, b"to")?, "{pods} to {address}");
        assert!(sends(&other, &from, b"back")?, "{address} to {pods}");
    }
    Ok(())
}

pub fn the_gateway_of_every_subnet_answers() -> Outcome {
    let sim = start()?;
    let (a, _) = crate::pair(&sim)?;
    let (_, pods) = second(&sim, &a, PODS)?;
    for (from, subnet) in [(a.address, "10.0.0.0/20"), (pods, PODS)] {
        let socket = socket_at(&a.netns, from)?;
        socket.connect((gateway(subnet.parse()?), 9))?;
        socket.send(b"?")?;
        let refused = socket.recv(&mut [0]).expect_err("nothing listens there");
        assert_eq!(
            refused.kind(),
            std::io::ErrorKind::ConnectionRefused,
            "{subnet}"
        );
    }
    Ok(())
}

/// Packets of a pod must leave through the interface that owns its address, also if both are in one VPC.
pub fn an_address_of_another_subnet_leaves_through_its_own_interface_only() -> Outcome {
    let sim = start()?;
    let (a, b) = crate::pair(&sim)?;
    let (_, pods) = second(&sim, &a, PODS)?;
    let receiver = socket_at(&b.netns, b.address)?;
    net::shell(&a.netns, &format!("ip rule del from {pods} lookup 7"))?;
    socket_at(&a.netns, pods)?.send_to(b"through eth0", receiver.local_addr()?)?;
    assert!(sends(&socket_at(&a.netns, a.address)?, &receiver, b"own")?);
    Ok(())
}
