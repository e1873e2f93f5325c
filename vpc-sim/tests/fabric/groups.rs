//! Security groups: who reaches an interface, and that replies need no rule.

use std::{net::UdpSocket, process::Command};

use vpc_sim::{
    Instance, LaunchInstance, Sim, SimConfig,
    ids::GroupId,
    world::{
        model::security::{Peer, Protocol, Rule},
        request::{Attribute, Pick},
    },
};

use crate::{
    Outcome,
    net::{sends, socket_at},
};

type Found<T> = Result<T, Box<dyn std::error::Error>>;

const ANY_UDP: Protocol = Protocol::Udp { from: 1, to: 65535 };

fn group(sim: &Sim, name: &str) -> Found<GroupId> {
    let mut world = sim.world();
    let vpc = world.vpcs().next().ok_or("no VPC")?.id.clone();
    Ok(world.add_group(&vpc, name, name))
}

fn node_in(sim: &Sim, group: &GroupId) -> Found<(Instance, UdpSocket)> {
    let launch = LaunchInstance {
        groups: vec![group.clone()],
        ..LaunchInstance::default()
    };
    let node = sim.launch_instance(launch)?;
    let socket = socket_at(&node.netns, node.address)?;
    Ok((node, socket))
}

fn move_to(sim: &Sim, node: &Instance, group: &GroupId) -> Outcome {
    let attribute = Attribute::Groups(vec![group.clone()]);
    sim.world()
        .modify_network_interface(&node.eni, attribute, sim.now())?;
    Ok(sim.settle()?)
}

fn tables(sim: &Sim) -> Found<String> {
    let list = || Command::new("nft").args(["list", "tables"]).output();
    let output = sim.router().run(list)??;
    Ok(String::from_utf8(output.stdout)?)
}

pub fn only_members_of_the_right_group_reach_a_server() -> Outcome {
    let sim = crate::start()?;
    let (servers, clients) = (group(&sim, "servers")?, group(&sim, "clients")?);
    let rule = Rule::new(ANY_UDP, Peer::Group(clients.clone()));
    sim.world().set_ingress(&servers, vec![rule]);
    let (_server, at_server) = node_in(&sim, &servers)?;
    let (_client, at_client) = node_in(&sim, &clients)?;
    let (stranger, at_stranger) = node_in(&sim, &group(&sim, "strangers")?)?;
    at_stranger.send_to(b"stranger", at_server.local_addr()?)?;
    // Fails if the stranger's packet arrives first.
    assert!(sends(&at_client, &at_server, b"client")?);
    move_to(&sim, &stranger, &clients)?;
    assert!(sends(&at_stranger, &at_server, b"no stranger")?);
    Ok(())
}

pub fn replies_need_no_rule_and_outlast_it() -> Outcome {
    let sim = crate::start()?;
    let (servers, clients) = (group(&sim, "servers")?, group(&sim, "clients")?);
    let rule = Rule::new(ANY_UDP, Peer::Group(clients.clone()));
    sim.world().set_ingress(&servers, vec![rule]);
    let (server, at_server) = node_in(&sim, &servers)?;
    let (client, at_client) = node_in(&sim, &clients)?;
    assert!(sends(&at_client, &at_server, b"request")?);
    // The client's group lets nothing in: only the reply passes.
    let unasked = socket_at(&server.netns, server.address)?;
    unasked.send_to(b"unasked", at_client.local_addr()?)?;
    assert!(sends(&at_server, &at_client, b"reply")?);
    sim.world().set_ingress(&servers, Vec::new());
    sim.settle()?;
    let late = socket_at(&client.netns, client.address)?;
    late.send_to(b"too late", at_server.local_addr()?)?;
    assert!(sends(&at_client, &at_server, b"tracked")?);
    Ok(())
}

pub fn a_group_that_lets_nothing_out_silences_its_members() -> Outcome {
    let sim = crate::start()?;
    let (a, b) = crate::pair(&sim)?;
    let quiet = group(&sim, "quiet")?;
    sim.world().set_egress(&quiet, Vec::new());
    let receiver = socket_at(&b.netns, b.address)?;
    let (_node, silenced) = node_in(&sim, &quiet)?;
    silenced.send_to(b"quiet", receiver.local_addr()?)?;
    assert!(sends(
        &socket_at(&a.netns, a.address)?,
        &receiver,
        b"marker"
    )?);
    Ok(())
}

pub fn rules_for_blocks_and_ports_hold_in_both_families() -> Outcome {
    let sim = Sim::start(SimConfig::dual_stack())?;
    let launch = |groups| LaunchInstance {
        groups,
        ipv6: Pick::Count(1),
        ..LaunchInstance::default()
    };
    let guarded = group(&sim, "guarded")?;
    let a = sim.launch_instance(launch(Vec::new()))?;
    let b = sim.launch_instance(launch(vec![guarded.clone()]))?;
    let (four, six) = (b.address, b.ipv6.ok_or("no IPv6 address")?);
    let [to_four, other_port] = [socket_at(&b.netns, four)?, socket_at(&b.netns, four)?];
    let to_six = socket_at(&b.netns, six)?;
    let port = |socket: &UdpSocket| socket.local_addr().map(|at| at.port());
    let rules = vec![
        Rule::new(
            Protocol::udp(port(&to_four)?),
            Peer::Block("10.0.0.0/8".parse()?),
        ),
        Rule::new(Protocol::All, Peer::Block("2600:1f14::/32".parse()?)),
    ];
    sim.world().set_ingress(&guarded, rules);
    sim.settle()?;
    let from_four = socket_at(&a.netns, a.address)?;
    let from_six = socket_at(&a.netns, a.ipv6.ok_or("no IPv6 address")?)?;
    from_four.send_to(b"wrong port", other_port.local_addr()?)?;
    assert!(sends(&from_four, &to_four, b"port")?);
    assert!(sends(&from_six, &to_six, b"block")?);
    other_port.set_nonblocking(true)?;
    assert!(
        other_port.recv(&mut [0; 16]).is_err(),
        "no rule for this port"
    );
    Ok(())
}

pub fn without_restrictions_nothing_is_filtered_or_tracked() -> Outcome {
    let sim = crate::start()?;
    let (a, b) = crate::pair(&sim)?;
    assert!(!tables(&sim)?.contains("groups"));
    let pods = group(&sim, "pods")?;
    let default = {
        let world = sim.world();
        let vpc = world.vpcs().next().ok_or("no VPC")?;
        vpc.default_group.clone()
    };
    move_to(&sim, &a, &pods)?;
    assert!(tables(&sim)?.contains("table inet groups"));
    let (receiver, sender) = (
        socket_at(&a.netns, a.address)?,
        socket_at(&b.netns, b.address)?,
    );
    sender.send_to(b"guarded", receiver.local_addr()?)?;
    move_to(&sim, &a, &default)?;
    assert!(!tables(&sim)?.contains("groups"));
    assert!(sends(&sender, &receiver, b"open again")?);
    Ok(())
}
