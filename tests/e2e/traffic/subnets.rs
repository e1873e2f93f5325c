//! Pods in another subnet than their node's, in a second block of the VPC, and security groups around them.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use datapath::netns::Netns;
use lab::{
    Lab,
    node::{Node, Pod},
    subnets::{ByHand, POD_SUBNET_TAG, with_pod_subnets},
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
    },
};
use vpc_sim::{
    fabric::INTERNET_ADDRESS,
    ids::GroupId,
    world::{
        model::{Tags, security::Rule},
        request::Pick,
    },
};

use crate::suite::{Outcome, trials};

trials!(
    pods_of_another_subnet_are_translated_outside_the_vpc_only,
    a_security_group_decides_who_reaches_a_pod,
    forty_pods_are_spread_over_the_subnets_that_have_addresses,
);

const NODES: &str = "10.0.0.0/20";
const PODS: &str = "100.64.0.0/24";
const PORT: u16 = 80;
const LIMIT: Duration = Duration::from_secs(10);
/// For packets that must not arrive.
const LOST: Duration = Duration::from_millis(500);

/// A node in these groups with a second ENI in the pods' subnet, and a pod on each of both.
struct Mixed {
    near: Pod,
    far: Pod,
    node: Node,
}

fn mixed(lab: &Lab, groups: &[GroupId]) -> io::Result<Mixed> {
    let mut node = lab.bare_node_in("t3.small", (&lab.subnet(NODES)?, groups), &[])?;
    let eni = ByHand {
        groups: groups.to_vec(),
        ipv4: Pick::Count(3),
        tags: [(POD_SUBNET_TAG.to_owned(), "1".to_owned())].into(),
        ..ByHand::plain(lab.subnet(PODS)?)
    };
    lab.attach(&node, eni)?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    let (mut near, mut far) = (None, None);
    // Three addresses on each ENI, so that six pods need both.
    for n in 0..6 {
        let pod = node.add_pod(&format!("pod{n}"))?;
        match lab
            .subnet_of(pod.address())
            .map(|net| net.to_string())
            .as_deref()
        {
            Some(PODS) => far = Some(pod),
            Some(NODES) => near = Some(pod),
            other => return Err(io::Error::other(format!("a pod in {other:?}"))),
        }
    }
    let missing = || io::Error::other(format!("no pod in one of the subnets\n{}", node.log()));
    let (near, far) = (near.ok_or_else(missing)?, far.ok_or_else(missing)?);
    Ok(Mixed { near, far, node })
}

fn pings(from: &Netns, to: impl Into<IpAddr>, limit: Duration) -> io::Result<bool> {
    Ok(ping(from, None, to.into(), limit)?.is_some())
}

fn pods_of_another_subnet_are_translated_outside_the_vpc_only() -> Outcome {
    let lab = Lab::start(with_pod_subnets(&[PODS])?)?;
    let (a, b) = (mixed(&lab, &[])?, lab.node("t3.small", &[])?);
    let on_b = b.add_pod("b")?;
    let at = |address: IpAddr| SocketAddr::from((address, PORT));
    let listeners = [
        (
            lab.sim.internet(),
            at(INTERNET_ADDRESS.into()),
            a.node.instance.address.into(),
        ),
        (b.netns(), at(b.instance.address.into()), a.far.address()),
        (&on_b.netns, at(on_b.address()), a.far.address()),
        (&a.near.netns, at(a.near.address()), a.far.address()),
    ];
    for (netns, at, seen_as) in listeners {
        let _listener = Listener::start(netns, at, "listener")?;
        let mut call = TcpConnection::start(&a.far.netns, None, at, LIMIT)?;
        assert_eq!(call.seen_as.ip(), seen_as, "at {at}");
        call.echoes()?;
    }
    // And in the other direction.
    let _listener = Listener::start(&a.far.netns, at(a.far.address()), "far")?;
    for from in [b.netns(), &on_b.netns, &a.near.netns, a.node.netns()] {
        TcpConnection::start(from, None, at(a.far.address()), LIMIT)?.echoes()?;
    }
    Ok(())
}

fn a_security_group_decides_who_reaches_a_pod() -> Outcome {
    let lab = Lab::start(with_pod_subnets(&[PODS])?)?;
    let (clients, servers) = (
        lab.group("clients", Vec::new())?,
        lab.group("servers", Vec::new())?,
    );
    let a = mixed(&lab, std::slice::from_ref(&servers))?;
    let mut b = lab.bare_node_in(
        "t3.small",
        (&lab.subnet(NODES)?, std::slice::from_ref(&clients)),
        &[],
    )?;
    b.start_daemon(&lab.sim.ec2_endpoint())?;
    let client = b.add_pod("client")?;
    let open = lab.node("t3.small", &[])?;
    let stranger = open.add_pod("stranger")?;
    let pods = [("near", &a.near), ("far", &a.far)];
    for (which, pod) in pods {
        assert!(
            !pings(&client.netns, pod.address(), LOST)?,
            "{which} is in a closed group"
        );
        // Its own connections pass, and so do the answers.
        assert!(
            pings(&pod.netns, stranger.address(), LIMIT)?,
            "{which} cannot send"
        );
        assert!(
            !pings(&pod.netns, client.address(), LOST)?,
            "the clients' group is closed too"
        );
    }
    lab.sim
        .world()
        .set_ingress(&servers, vec![Rule::members(&clients)]);
    lab.sim.settle()?;
    for (which, pod) in pods {
        assert!(
            pings(&client.netns, pod.address(), LIMIT)?,
            "{which} accepts clients"
        );
        assert!(
            !pings(&stranger.netns, pod.address(), LOST)?,
            "{which} accepts strangers"
        );
    }
    lab.set_groups(&open.instance.eni, std::slice::from_ref(&clients))?;
    assert!(
        pings(&stranger.netns, a.far.address(), LIMIT)?,
        "it is a client now"
    );
    Ok(())
}

fn forty_pods_are_spread_over_the_subnets_that_have_addresses() -> Outcome {
    const SUBNETS: [&str; 3] = ["100.64.0.0/26", "100.64.0.64/26", "100.64.0.128/26"];
    let lab = Lab::start(with_pod_subnets(&SUBNETS)?)?;
    let (nodes, full) = (lab.subnet(NODES)?, lab.subnet(SUBNETS[1])?);
    {
        let mut world = lab.sim.world();
        world.crowd(&full, 0);
        // The nodes' own subnet is not for pods.
        let closed = Tags::from([(POD_SUBNET_TAG.to_owned(), "0".to_owned())]);
        world.tag(&[nodes.to_string()], &closed)?;
    }
    // m5.xlarge: three ENIs besides the primary one, with 14 pods each.
    let node = lab.node("m5.xlarge", &[])?;
    let pods: Vec<Pod> = (0..40)
        .map(|n| node.add_pod(&format!("pod{n}")))
        .collect::<io::Result<_>>()?;
    let mut spread: BTreeMap<String, usize> = BTreeMap::new();
    for pod in &pods {
        let subnet = lab.subnet_of(pod.address()).map(|net| net.to_string());
        *spread.entry(subnet.unwrap_or_default()).or_default() += 1;
    }
    let used: Vec<&str> = spread.keys().map(String::as_str).collect();
    assert_eq!(used, [SUBNETS[0], SUBNETS[2]], "{spread:?}\n{}", node.log());
    let peer = lab.bare_node("t3.small", &[])?;
    for pod in &pods {
        assert!(
            pings(peer.netns(), pod.address(), LIMIT)?,
            "{}",
            pod.address()
        );
        assert!(
            pings(&pod.netns, peer.instance.address, LIMIT)?,
            "{}",
            pod.address()
        );
    }
    Ok(())
}
