//! Traffic out of the VPC during a node's life: connections that outlast daemons, changed settings, CIDR blocks that
//! are added to the VPC.

use std::{net::SocketAddr, time::Duration};

use datapath::netlink::{Socket, rule::Rule};
use lab::{
    error::with_causes,
    traffic::{
        kube_proxy::{Proxy, Service, feed, program},
        node_pair::{Endpoint, LIMIT, NodePair, PORT},
        tcp_probe::{Listener, TcpConnection},
    },
    wait::eventually,
};
use vpc_sim::{Instance, LaunchInstance};

use crate::suite::{Outcome, trials};

trials!(
    connections_outlast_the_daemon,
    translation_is_switched_off_and_on_by_a_restart,
    a_block_that_is_added_to_the_vpc_is_noticed,
    the_vpcs_blocks_are_known_without_the_metadata_service,
);

/// One connection of each kind that uses another path, for pods on both ENIs.
fn connections(
    pair: &NodePair,
) -> Result<Vec<(String, TcpConnection)>, Box<dyn std::error::Error>> {
    let service = |port, endpoint, masquerade| Service {
        at: SocketAddr::from((pair.address(Endpoint::A), port)),
        endpoint: pair.at(endpoint),
        masquerade,
    };
    let ports = [
        service(30000, Endpoint::APrimary, false),
        service(30001, Endpoint::ASecondary, false),
        service(30002, Endpoint::ASecondary, true),
    ];
    program(pair.a.netns(), Proxy::Iptables, &ports)?;
    let mut calls = Vec::new();
    for pod in Endpoint::ON_A {
        calls.extend([
            (pod, pair.at(Endpoint::Internet)),
            (pod, pair.at(Endpoint::B)),
            (pod, pair.at(Endpoint::BSecondary)),
            (Endpoint::BSecondary, pair.at(pod)),
        ]);
    }
    calls.extend(ports.map(|port| (Endpoint::Internet, port.at)));
    let open = |(from, to)| Ok((format!("{from:?} to {to}"), pair.call(from, to)?));
    calls.into_iter().map(open).collect()
}

fn connections_outlast_the_daemon() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let mut open = connections(&pair)?;
    let endpoint = pair.lab.sim.ec2_endpoint();
    for clean in [true, false] {
        for (what, call) in &mut open {
            pair.note(&format!("before: {what}"), call.echoes());
        }
        if clean {
            pair.a.stop_daemon()?;
        } else {
            pair.a.kill_daemon()?;
        }
        for (what, call) in &mut open {
            pair.note(&format!("without a daemon: {what}"), call.echoes());
        }
        pair.a.start_daemon(&endpoint)?;
        for (what, call) in &mut open {
            pair.note(&format!("after: {what}"), call.echoes());
        }
    }
    Ok(pair.verdict()?)
}

/// Our rules for marked packets, and the lines of our nftables.
fn of_egress(pair: &NodePair) -> Result<(Vec<Rule>, String), Box<dyn std::error::Error>> {
    let netns = pair.a.netns();
    let family = datapath::netlink::Family::V4;
    let mut rules = netns.run(|| Socket::open()?.rules(family))??;
    rules.retain(|rule| rule.priority == datapath::constants::RULE_PRIMARY);
    let table = feed(netns, &["nft", "list", "table", "ip", "hawser"], "")?;
    // ENIs' chains are in the order in which the ENIs were added.
    let mut lines: Vec<_> = table.lines().collect();
    lines.sort_unstable();
    Ok((rules, lines.join("\n")))
}

fn restart(pair: &mut NodePair, external_snat: bool, node_ports: bool) -> std::io::Result<()> {
    let endpoint = pair.lab.sim.ec2_endpoint();
    let settings = [
        ("AWS_VPC_K8S_CNI_EXTERNALSNAT", external_snat),
        ("AWS_VPC_CNI_NODE_PORT_SUPPORT", node_ports),
    ];
    for (name, value) in settings {
        pair.a.set(name, &value.to_string());
    }
    pair.a.stop_daemon()?;
    pair.a.start_daemon(&endpoint)
}

fn translation_is_switched_off_and_on_by_a_restart() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let on = of_egress(&pair)?;
    let mut open = connections(&pair)?;
    for (external_snat, node_ports) in [(true, true), (true, false), (false, true)] {
        restart(&mut pair, external_snat, node_ports)?;
        for pod in Endpoint::ON_A {
            let seen_as = if external_snat { pod } else { Endpoint::A };
            let to = pair.at(Endpoint::Internet);
            pair.expect("off the VPC", pod, to, (Endpoint::Internet, seen_as));
        }
        let (rules, table) = of_egress(&pair)?;
        // Replies of host ports need it with every setting.
        assert_eq!(rules.len(), 1);
        assert_eq!(
            table.contains("chain source_nat"),
            !external_snat,
            "{table}"
        );
        assert_eq!(table.contains("chain leaving"), !external_snat, "{table}");
        assert_eq!(table.contains("chain nodeport_in"), node_ports, "{table}");
        // A connection's first packet decides. These must outlast the next changes too (public case 37).
        for pod in Endpoint::ON_A {
            let call = pair.call(pod, pair.at(Endpoint::Internet))?;
            open.push((format!("{pod:?}, external SNAT {external_snat}"), call));
        }
        // Only with both settings disabled, nothing is left that knows it.
        if node_ports {
            for (what, call) in &mut open {
                pair.note(what, call.echoes());
            }
        }
    }
    assert_eq!(of_egress(&pair)?, on, "as it was at first");
    Ok(pair.verdict()?)
}

/// A separate block for a subnet, and an instance in it.
fn another_block(pair: &NodePair) -> Result<Instance, Box<dyn std::error::Error>> {
    let subnet = {
        let mut world = pair.lab.sim.world();
        let vpc = world.vpcs().next().ok_or("no VPC")?.id.clone();
        assert!(world.associate_block(&vpc, "100.64.0.0/16".parse()?));
        world.add_subnet(&vpc, "100.64.16.0/20".parse()?, None, 'a')
    };
    pair.lab.sim.settle()?;
    let launch = LaunchInstance::plain("t3.small", subnet);
    Ok(pair
        .lab
        .sim
        .launch_instance(launch)
        .map_err(|e| with_causes(&e))?)
}

fn a_block_that_is_added_to_the_vpc_is_noticed() -> Outcome {
    let mut pair = NodePair::start(&[("HAWSER_VPC_CIDR_PERIOD", "1")])?;
    let handles =
        "for c in choose_eni source_nat nodeport_in; do nft -a list chain ip hawser $c; done";
    let handles = ["sh", "-ec", handles];
    let before = feed(pair.a.netns(), &handles, "")?;
    let calls = pair.lab.sim.calls().len();
    // Node a checks once per second; a connection that is opened in between is translated.
    let newcomer = another_block(&pair)?;
    let at = SocketAddr::from((newcomer.address, PORT));
    let _listener = Listener::start(&newcomer.netns, at, "newcomer")?;
    let mut open = Vec::new();
    for pod in Endpoint::ON_A {
        let noticed = eventually(Duration::from_secs(30), || {
            let Ok(call) = pair.call(pod, at) else {
                return false;
            };
            let seen_as_pod = call.seen_as.ip() == pair.address(pod);
            open.push((format!("{pod:?} seen as {}", call.seen_as), call));
            seen_as_pod
        });
        assert!(noticed, "{pod:?} is still translated\n{}", pair.a.log());
    }
    // Also the translated ones: they keep their path.
    for (what, call) in &mut open {
        pair.note(what, call.echoes());
    }
    assert_eq!(
        feed(pair.a.netns(), &handles, "")?,
        before,
        "nothing but what is local"
    );
    assert_eq!(pair.lab.sim.calls().len(), calls, "EC2 was not asked");
    Ok(pair.verdict()?)
}

fn the_vpcs_blocks_are_known_without_the_metadata_service() -> Outcome {
    let mut pair = NodePair::start(&[("HAWSER_VPC_CIDR_PERIOD", "1")])?;
    let newcomer = another_block(&pair)?;
    let local = ["nft", "list", "chain", "ip", "hawser", "leaving"];
    let netns = datapath::netns::Netns::from_fd(
        std::os::fd::AsFd::as_fd(pair.a.netns()).try_clone_to_owned()?,
    )?;
    let holds = || feed(&netns, &local, "").is_ok_and(|text| text.contains("100.64.0.0/16"));
    assert!(eventually(LIMIT * 3, holds), "{}", pair.a.log());
    pair.a.stop_daemon()?;
    feed(
        pair.a.netns(),
        &["nft", "delete", "table", "ip", "hawser"],
        "",
    )?;
    feed(
        pair.a.netns(),
        &["ip", "route", "add", "blackhole", "169.254.169.254"],
        "",
    )?;
    let endpoint = pair.lab.sim.ec2_endpoint();
    pair.a.start_daemon(&endpoint)?;
    assert!(holds(), "the restarted daemon does not know the block");
    let at = SocketAddr::from((newcomer.address, PORT));
    let _listener = Listener::start(&newcomer.netns, at, "newcomer")?;
    for pod in Endpoint::ON_A {
        let call = pair.call(pod, at)?;
        assert_eq!(call.seen_as.ip(), pair.address(pod));
    }
    // A service that does not answer changes nothing.
    let warned = || {
        pair.a
            .log()
            .contains("could not read the VPC's CIDR blocks")
    };
    assert!(eventually(LIMIT * 3, warned), "{}", pair.a.log());
    assert!(holds());
    Ok(pair.verdict()?)
}
