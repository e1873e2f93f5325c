//! The fabric with packets: which hosts reach each other, and which do not.
//!
//! Runs in namespaces that it creates before it starts any thread, so it changes nothing on the machine and needs no
//! root where user namespaces are allowed. If neither works, it fails. No test waits for a timeout: a packet that must
//! not arrive is followed by one that must arrive, on the same path.

#[path = "fabric/groups.rs"]
mod groups;
#[path = "fabric/ipv6.rs"]
mod ipv6;
#[path = "fabric/net.rs"]
mod net;
#[path = "fabric/subnets.rs"]
mod subnets;
#[path = "fabric/up.rs"]
mod up;

use std::{net::IpAddr, process::ExitCode, time::Duration};

use datapath::netlink::Socket;
use groups::{
    a_group_that_lets_nothing_out_silences_its_members,
    only_members_of_the_right_group_reach_a_server, replies_need_no_rule_and_outlast_it,
    rules_for_blocks_and_ports_hold_in_both_families,
    without_restrictions_nothing_is_filtered_or_tracked,
};
use ipv6::{
    an_ipv6_source_that_the_interface_does_not_own_is_dropped,
    every_member_of_an_ipv6_prefix_is_delivered_until_it_is_unassigned,
    nodes_reach_each_other_and_the_internet_in_ipv6,
};
use libtest_mimic::{Arguments, Failed, Trial};
use net::{http, sends, socket_at, take_address};
use subnets::{
    a_second_block_is_inside_the_vpc,
    an_address_of_another_subnet_leaves_through_its_own_interface_only,
    the_gateway_of_every_subnet_answers,
};
use up::up_names_the_namespaces_of_its_instances;
use vpc_sim::{
    Fault, FaultKind, Instance, LaunchInstance, Sim, SimConfig, World, WorldConfig,
    action::Action,
    fabric::{EC2_ADDRESS, IMDS_ADDRESS, INTERNET_ADDRESS},
    ids::EniId,
    latency::{Latency, Span},
    world::{
        model::{AttachmentState, NetworkInterface},
        request::{
            AssignPrivateIpAddresses, AttachNetworkInterface, Attribute, CreateNetworkInterface,
            DetachNetworkInterface, Pick, Pick4,
        },
    },
};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const LIMIT: Duration = Duration::from_secs(10);

macro_rules! trials {
    ($($name:ident),* $(,)?) => {
        vec![$(Trial::test(stringify!($name), || $name().map_err(|e| Failed::from(format!("{e}: {e:?}"))))),*]
    };
}

fn main() -> ExitCode {
    if let Err(reason) = net::enter() {
        stdout::errln!("fabric tests cannot run: {reason}");
        return ExitCode::FAILURE;
    }
    let trials = trials![
        nodes_reach_each_other_and_the_internet,
        the_gateway_answers,
        an_assigned_address_is_delivered_until_it_is_unassigned,
        every_member_of_a_prefix_is_delivered,
        a_destination_reaches_its_owner_only,
        a_source_that_the_interface_does_not_own_is_dropped,
        without_the_check_any_source_passes,
        an_attached_interface_appears_down_with_its_mac,
        a_device_appears_when_attached_and_not_before,
        a_cut_interface_delivers_nothing_while_its_device_is_there,
        cards_have_names_of_their_own,
        an_address_that_moves_follows_its_owner,
        termination_takes_the_links_away,
        the_resolver_answers_at_both_its_addresses,
        up_names_the_namespaces_of_its_instances,
        imds_knows_who_asks,
        ec2_answers_over_the_fabric,
        a_lost_reply_closes_the_connection_and_the_call_has_happened,
        nodes_reach_each_other_and_the_internet_in_ipv6,
        every_member_of_an_ipv6_prefix_is_delivered_until_it_is_unassigned,
        an_ipv6_source_that_the_interface_does_not_own_is_dropped,
        a_second_block_is_inside_the_vpc,
        the_gateway_of_every_subnet_answers,
        an_address_of_another_subnet_leaves_through_its_own_interface_only,
        only_members_of_the_right_group_reach_a_server,
        replies_need_no_rule_and_outlast_it,
        a_group_that_lets_nothing_out_silences_its_members,
        rules_for_blocks_and_ports_hold_in_both_families,
        without_restrictions_nothing_is_filtered_or_tracked,
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn start() -> Result<Sim, Box<dyn std::error::Error>> {
    Ok(Sim::start(SimConfig::default())?)
}

fn pair(sim: &Sim) -> Result<(Instance, Instance), Box<dyn std::error::Error>> {
    let launch = LaunchInstance::default();
    Ok((
        sim.launch_instance(launch.clone())?,
        sim.launch_instance(launch)?,
    ))
}

fn assign(
    sim: &Sim,
    eni: &EniId,
    ipv4: Pick4,
) -> Result<NetworkInterface, Box<dyn std::error::Error>> {
    let req = AssignPrivateIpAddresses {
        eni: eni.clone(),
        ipv4,
        allow_reassignment: true,
    };
    sim.world().assign_private_ip_addresses(&req, sim.now())?;
    sim.settle()?;
    Ok(interface(&sim.world(), eni))
}

fn interface(world: &World, eni: &EniId) -> NetworkInterface {
    world.interface(eni).expect("the interface exists").clone()
}

fn attach(
    sim: &Sim,
    node: &Instance,
    card: u32,
    device: u32,
) -> Result<EniId, Box<dyn std::error::Error>> {
    let create = CreateNetworkInterface::plain(node.subnet.clone());
    let eni = sim.world().create_network_interface(create, sim.now())?.id;
    let req = AttachNetworkInterface {
        eni: eni.clone(),
        instance: node.id.clone(),
        card,
        device,
    };
    sim.world().attach_network_interface(&req, sim.now())?;
    Ok(eni)
}

fn is_attached(world: &World, eni: &EniId) -> bool {
    let bond = world.interface(eni).and_then(|e| e.attachment.as_ref());
    bond.is_some_and(|a| a.state == AttachmentState::Attached)
}

fn nodes_reach_each_other_and_the_internet() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    for (from, at, to, address) in [
        (&a.netns, a.address, &b.netns, b.address),
        (&b.netns, b.address, &a.netns, a.address),
        (&a.netns, a.address, sim.internet(), INTERNET_ADDRESS),
        (sim.internet(), INTERNET_ADDRESS, &a.netns, a.address),
    ] {
        let receiver = socket_at(to, address)?;
        assert!(
            sends(&socket_at(from, at)?, &receiver, b"hello")?,
            "{at} to {address}"
        );
    }
    Ok(())
}

fn the_gateway_answers() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    let gateway = sim
        .world()
        .subnet(&a.subnet)
        .expect("the node's subnet")
        .gateway();
    let socket = socket_at(&a.netns, a.address)?;
    socket.connect((gateway, 9))?;
    socket.send(b"?")?;
    // There is no listener, and the router reports it.
    let refused = socket
        .recv(&mut [0])
        .expect_err("no service on the gateway");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

/// Queries the name like a stub resolver: a reply from another address is ignored.
fn the_resolver_answers_at_both_its_addresses() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    let address = [192, 0, 2, 7];
    let name = "db.example".to_owned();
    sim.names().insert(name, vec![IpAddr::from(address)]);
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.extend(b"\x02db\x07example\0\0\x01\0\x01");
    for resolver in ["169.254.169.253", "10.0.0.2"] {
        let socket = socket_at(&a.netns, a.address)?;
        socket.connect((resolver, 53))?;
        socket.send(&query)?;
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply)?;
        assert_eq!(reply[..2], query[..2], "{resolver}");
        assert!(reply[..len].ends_with(&address), "{resolver}");
    }
    Ok(())
}

fn an_assigned_address_is_delivered_until_it_is_unassigned() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    let extra = assign(&sim, &a.eni, Pick::Count(1))?.ipv4[1];
    take_address(&a.netns, "eth0", extra)?;
    let from = socket_at(&b.netns, b.address)?;
    let (secondary, primary) = (socket_at(&a.netns, extra)?, socket_at(&a.netns, a.address)?);
    assert!(sends(&from, &secondary, b"while assigned")?);
    sim.world()
        .unassign_private_ip_addresses(&a.eni, &[extra], &[], sim.now())?;
    sim.settle()?;
    from.send_to(b"too late", (extra, secondary.local_addr()?.port()))?;
    assert!(sends(&from, &primary, b"marker")?);
    secondary.set_nonblocking(true)?;
    assert!(
        secondary.recv(&mut [0; 16]).is_err(),
        "delivered after it was unassigned"
    );
    Ok(())
}

fn every_member_of_a_prefix_is_delivered() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    let prefix = assign(&sim, &a.eni, Pick::PrefixCount(1))?.ipv4_prefixes[0];
    let from = socket_at(&b.netns, b.address)?;
    for member in [prefix.network(), prefix.broadcast()] {
        take_address(&a.netns, "eth0", member)?;
        let receiver = socket_at(&a.netns, member)?;
        assert!(sends(&from, &receiver, b"prefix")?, "{member} of {prefix}");
        assert!(
            sends(&receiver, &from, b"and back")?,
            "{member} of {prefix}"
        );
    }
    Ok(())
}

fn a_destination_reaches_its_owner_only() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    let nobodys = free_address(&sim, &a);
    take_address(&a.netns, "eth0", nobodys)?;
    let (squatter, honest) = (
        socket_at(&a.netns, nobodys)?,
        socket_at(&a.netns, a.address)?,
    );
    let from = socket_at(&b.netns, b.address)?;
    from.send_to(b"to nobody", (nobodys, squatter.local_addr()?.port()))?;
    assert!(sends(&from, &honest, b"marker")?);
    squatter.set_nonblocking(true)?;
    assert!(
        squatter.recv(&mut [0; 16]).is_err(),
        "delivered to an interface that does not own it"
    );
    Ok(())
}

fn free_address(sim: &Sim, near: &Instance) -> std::net::Ipv4Addr {
    let world = sim.world();
    let subnet = world.subnet(&near.subnet).expect("the node's subnet");
    let free = subnet
        .cidr
        .hosts()
        .skip(10)
        .find(|a| world.owner_of(*a).is_none());
    free.expect("a subnet with two nodes in it is not full")
}

fn a_source_that_the_interface_does_not_own_is_dropped() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    let victim = sim.launch_instance(LaunchInstance::default())?;
    let receiver = socket_at(&b.netns, b.address)?;
    for forged in [victim.address, free_address(&sim, &a), INTERNET_ADDRESS] {
        take_address(&a.netns, "lo", forged)?;
        socket_at(&a.netns, forged)?.send_to(b"forged", receiver.local_addr()?)?;
        // Fails if the forged packet arrives first.
        assert!(
            sends(&socket_at(&a.netns, a.address)?, &receiver, b"own")?,
            "{forged} got through"
        );
    }
    Ok(())
}

fn without_the_check_any_source_passes() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    sim.world()
        .modify_network_interface(&a.eni, Attribute::SourceDestCheck(false), sim.now())?;
    sim.settle()?;
    let foreign = sim.launch_instance(LaunchInstance::default())?.address;
    take_address(&a.netns, "lo", foreign)?;
    assert!(sends(
        &socket_at(&a.netns, foreign)?,
        &socket_at(&b.netns, b.address)?,
        b"relayed"
    )?);
    Ok(())
}

fn an_attached_interface_appears_down_with_its_mac() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    let eni = attach(&sim, &a, 0, 1)?;
    assert!(sim.wait_until(LIMIT, |w| is_attached(w, &eni)));
    let mut socket = Socket::open_in(&a.netns)?;
    let primary = socket.link_by_name("eth0")?.expect("the primary device");
    assert_eq!(
        (primary.mac, primary.mtu, primary.up),
        (Some(a.mac), 9001, true)
    );
    let link = socket.link_by_name("eth1")?.expect("the new device");
    let made = interface(&sim.world(), &eni);
    assert_eq!((link.mac, link.mtu, link.up), (Some(made.mac), 9001, false));
    let attachment = made.attachment.expect("it is attached").id;
    sim.world().detach_network_interface(
        &DetachNetworkInterface {
            attachment,
            force: false,
        },
        sim.now(),
    )?;
    assert!(sim.wait_until(LIMIT, |w| {
        w.interface(&eni).is_some_and(|e| e.attachment.is_none())
    }));
    assert_eq!(socket.link_by_name("eth1")?, None);
    Ok(())
}

/// 200 ms from the call to `attached`; nothing else takes time.
fn slow_attach() -> SimConfig {
    let none = Span::millis(0, 0);
    let latency = Latency {
        scale: 1.0,
        describe: none,
        create: none,
        attach: none,
        assign: none,
        other: none,
        attaches: Span::millis(200, 200),
        detaches: Span::millis(3_600_000, 3_600_000),
        usable: none,
    };
    SimConfig {
        world: WorldConfig {
            latency,
            ..WorldConfig::default()
        },
        ..SimConfig::default()
    }
}

fn a_device_appears_when_attached_and_not_before() -> Outcome {
    let sim = Sim::start(slow_attach())?;
    let node = sim.launch_instance(LaunchInstance::default())?;
    let mut socket = Socket::open_in(&node.netns)?;
    let eni = attach(&sim, &node, 0, 1)?;
    assert_eq!(socket.link_by_name("eth1")?, None, "while it is attaching");
    assert!(sim.wait_until(LIMIT, |w| is_attached(w, &eni)));
    assert!(socket.link_by_name("eth1")?.is_some());
    Ok(())
}

fn a_cut_interface_delivers_nothing_while_its_device_is_there() -> Outcome {
    let sim = Sim::start(slow_attach())?;
    let (a, b) = pair(&sim)?;
    let eni = attach(&sim, &a, 0, 1)?;
    assert!(sim.wait_until(LIMIT, |w| is_attached(w, &eni)));
    let made = interface(&sim.world(), &eni);
    let address = made.primary().expect("an interface has a primary address");
    // On the loopback: the packet must arrive through eth1, the interface that owns the address in EC2.
    take_address(&a.netns, "lo", address)?;
    net::up(&a.netns, "eth1")?;
    sim.settle()?;
    let (second, first) = (
        socket_at(&a.netns, address)?,
        socket_at(&a.netns, a.address)?,
    );
    let from = socket_at(&b.netns, b.address)?;
    assert!(sends(&from, &second, b"attached")?);
    let attachment = made.attachment.expect("it is attached").id;
    sim.world().detach_network_interface(
        &DetachNetworkInterface {
            attachment,
            force: false,
        },
        sim.now(),
    )?;
    sim.settle()?;
    from.send_to(b"detaching", second.local_addr()?)?;
    assert!(sends(&from, &first, b"marker")?);
    second.set_nonblocking(true)?;
    assert!(
        second.recv(&mut [0; 16]).is_err(),
        "delivered while detaching"
    );
    assert!(Socket::open_in(&a.netns)?.link_by_name("eth1")?.is_some());
    Ok(())
}

fn cards_have_names_of_their_own() -> Outcome {
    let sim = start()?;
    let launch = LaunchInstance {
        instance_type: "p4d.24xlarge".to_owned(),
        ..LaunchInstance::default()
    };
    let node = sim.launch_instance(launch)?;
    let eni = attach(&sim, &node, 2, 1)?;
    assert!(sim.wait_until(LIMIT, |w| is_attached(w, &eni)));
    assert!(
        Socket::open_in(&node.netns)?
            .link_by_name("eth2_1")?
            .is_some()
    );
    Ok(())
}

fn an_address_that_moves_follows_its_owner() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    let extra = assign(&sim, &a.eni, Pick::Count(1))?.ipv4[1];
    assign(&sim, &b.eni, Pick::These(vec![extra]))?;
    take_address(&b.netns, "eth0", extra)?;
    assert!(sends(
        &socket_at(&a.netns, a.address)?,
        &socket_at(&b.netns, extra)?,
        b"moved"
    )?);
    Ok(())
}

fn termination_takes_the_links_away() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    sim.terminate_instance(&a.id)?;
    let links = Socket::open_in(&a.netns)?.links()?;
    assert_eq!(
        links.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(),
        ["lo"]
    );
    let left = Socket::open_in(sim.router())?
        .links()?
        .into_iter()
        .filter(|l| l.name.starts_with("port"))
        .count();
    assert_eq!(left, 1, "the other node's");
    Ok(())
}

fn imds_knows_who_asks() -> Outcome {
    let sim = start()?;
    let (a, b) = pair(&sim)?;
    for node in [&a, &b] {
        let ask = |head: &str| http(&node.netns, IMDS_ADDRESS, head, "");
        let (status, token) =
            ask("PUT /latest/api/token\r\nX-aws-ec2-metadata-token-ttl-seconds: 60")?;
        assert_eq!(status, 200);
        let head = |path: &str| {
            format!("GET /latest/meta-data/{path}\r\nX-aws-ec2-metadata-token: {token}")
        };
        assert_eq!(ask(&head("instance-id"))?, (200, node.id.to_string()));
        assert_eq!(ask(&head("local-ipv4"))?, (200, node.address.to_string()));
        assert_eq!(
            ask(&head("network/interfaces/macs/"))?,
            (200, format!("{}/", node.mac))
        );
    }
    Ok(())
}

fn ec2_answers_over_the_fabric() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    let form = format!(
        "Action=AssignPrivateIpAddresses&Version=2016-11-15&SecondaryPrivateIpAddressCount=1&NetworkInterfaceId={}",
        a.eni
    );
    let (status, body) = http(&a.netns, EC2_ADDRESS, net::FORM, &form)?;
    assert_eq!(status, 200, "{body}");
    let new = interface(&sim.world(), &a.eni).ipv4[1];
    assert!(
        body.contains(&format!("<privateIpAddress>{new}</privateIpAddress>")),
        "{body}"
    );
    // No settle: the fabric follows automatically.
    assert!(sim.wait_until(LIMIT, |w| w.usable(IpAddr::V4(new))));
    assert_eq!(sim.calls().len(), 1);
    Ok(())
}

fn a_lost_reply_closes_the_connection_and_the_call_has_happened() -> Outcome {
    let sim = start()?;
    let (a, _) = pair(&sim)?;
    let fault = Fault {
        action: Action::AssignPrivateIpAddresses,
        times: 1,
        kind: FaultKind::LoseReply,
    };
    sim.faults().push(fault);
    let form = format!(
        "Action=AssignPrivateIpAddresses&Version=2016-11-15&SecondaryPrivateIpAddressCount=1&NetworkInterfaceId={}",
        a.eni
    );
    let mut stream = net::connect(&a.netns, EC2_ADDRESS)?;
    let answer = net::exchange(&mut stream, net::FORM, &form)?;
    assert_eq!(answer, "", "the connection must close without a byte");
    assert_eq!(interface(&sim.world(), &a.eni).ipv4.len(), 2);
    assert_eq!(sim.calls()[0].outcome, vpc_sim::Outcome::ReplyLost);
    Ok(())
}
