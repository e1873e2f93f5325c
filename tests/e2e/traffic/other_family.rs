//! Pods reach destinations of the other address family by the node's address, and nobody reaches them that way. On nodes of
//! both kinds.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    process::Command,
    time::Duration,
};

use datapath::{
    constants::{PODS_TABLE, egress_net},
    netlink::{self, Family, Socket},
    netns::Netns,
};
use lab::{
    Lab,
    node::{Node, Pod, count, host_link},
    traffic::{
        ping::ping,
        tcp_probe::{Listener, TcpConnection},
    },
    wait::eventually,
};

use vpc_sim::{
    SimConfig,
    fabric::{INTERNET_ADDRESS, INTERNET_ADDRESS_V6},
};

use crate::{
    suite::{Outcome, trials},
    support::ipv6,
};

trials!(
    pods_of_ipv4_reach_ipv6_destinations,
    pods_of_ipv6_reach_ipv4_destinations,
    pods_of_ipv6_ask_the_resolvers_of_the_vpc,
    nobody_reaches_a_pod_of_ipv4_by_its_other_address,
    nobody_reaches_a_pod_of_ipv6_by_its_other_address,
    path_mtu_is_learned_by_pods_of_ipv4,
    path_mtu_is_learned_by_pods_of_ipv6,
    the_other_family_outlasts_daemons_and_lost_records,
    what_others_remove_of_the_other_family_is_restored,
    switched_off_it_is_kept_by_old_pods_only,
    a_pod_without_ipv6_is_served_without_the_way_to_it,
    the_number_of_rules_does_not_grow_with_pods,
);

const LIMIT: Duration = Duration::from_secs(10);
const BRIEFLY: Duration = Duration::from_millis(400);
const PORT: u16 = 7000;
/// On a node of IPv4 pods; the default on the other kind.
const TO_IPV6: [(&str, &str); 2] = [("ENABLE_V6_EGRESS", "true"), ("IP_COOLDOWN_PERIOD", "1")];

struct Scene {
    lab: Lab,
    node: Node,
    /// Of the node's pods.
    family: Family,
}

/// A node in a VPC with both families.
fn scene(family: Family) -> io::Result<Scene> {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let node = match family {
        Family::V4 => lab.node("t3.small", &TO_IPV6)?,
        Family::V6 => lab.node("t3.small", &ipv6::SIX)?,
    };
    Ok(Scene { lab, node, family })
}

impl Scene {
    fn other(&self) -> Family {
        self.family.other()
    }

    /// Outside of the VPC, of the other family.
    fn outside(&self) -> IpAddr {
        match self.family {
            Family::V4 => INTERNET_ADDRESS_V6.into(),
            Family::V6 => INTERNET_ADDRESS.into(),
        }
    }

    fn nodes_own(&self, node: &Node) -> IpAddr {
        match self.family {
            Family::V4 => ipv6::own(node),
            Family::V6 => node.instance.address.into(),
        }
    }

    fn restart(&mut self) -> io::Result<()> {
        self.node.kill_daemon()?;
        self.node.start_daemon(&self.lab.sim.ec2_endpoint())
    }
}

/// The pod's address of the other family, if it has one.
fn egress(pod: &Pod, other: Family) -> io::Result<Option<IpAddr>> {
    let found = || -> Result<Vec<IpAddr>, netlink::Error> {
        let mut socket = Socket::open_in(&pod.netns)?;
        let all = socket.addresses(other, None)?;
        let net = egress_net(other);
        Ok(all
            .into_iter()
            .map(|a| a.address)
            .filter(|a| net.contains(a))
            .collect())
    };
    let found = found().map_err(io::Error::other)?;
    assert!(found.len() <= 1, "{found:?}");
    Ok(found.first().copied())
}

/// The node's routes to such addresses.
fn routed(node: &Node, other: Family) -> io::Result<Vec<IpAddr>> {
    let routes = Socket::open_in(node.netns()).and_then(|mut s| s.routes(other, Some(PODS_TABLE)));
    let routes = routes.map_err(io::Error::other)?;
    let all = routes.into_iter().map(|route| route.dst.addr());
    Ok(all.filter(|a| egress_net(other).contains(a)).collect())
}

fn inside(netns: &Netns, script: &str) -> io::Result<String> {
    let output = netns.run(|| Command::new("sh").args(["-ec", script]).output())??;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )),
    }
}

fn reach(family: Family) -> Outcome {
    let scene = scene(family)?;
    let pods = [scene.node.add_pod("pod0")?, scene.node.add_pod("pod1")?];
    let to = SocketAddr::from((scene.outside(), PORT));
    let _listener = Listener::start(scene.lab.sim.internet(), to, "outside")?;
    let nodes_own = scene.nodes_own(&scene.node);
    for pod in &pods {
        let call = TcpConnection::start(&pod.netns, None, to, LIMIT)?;
        assert_eq!(
            (call.with.as_str(), call.seen_as.ip()),
            ("outside", nodes_own)
        );
        assert!(ping(&pod.netns, None, scene.outside(), LIMIT)?.is_some());
        // The node itself is a destination like any other.
        assert!(ping(&pod.netns, None, nodes_own, LIMIT)?.is_some());
        // The result is of one family, or the kubelet would take the pod for one of both.
        assert_eq!(pod.added.json["ips"].as_array().map(Vec::len), Some(1));
        let check = scene.node.invocation("CHECK", &pod.id, Some(&pod.path));
        let check = check.conf("prevResult", pod.added.json.clone());
        let checked = check.run(scene.node.netns())?;
        assert!(checked.succeeded(), "{checked:?}");
    }
    // One answer of many datagrams, as of a resolver with TCP and large answers.
    let outbox = scene
        .lab
        .sim
        .internet()
        .run(|| UdpSocket::bind((scene.outside(), 53)))??;
    let inbox = pods[0].netns.run(|| {
        let any: IpAddr = match scene.outside() {
            IpAddr::V4(_) => [0; 4].into(),
            IpAddr::V6(_) => [0; 16].into(),
        };
        UdpSocket::bind((any, 0))
    })??;
    for socket in [&outbox, &inbox] {
        socket.set_read_timeout(Some(LIMIT))?;
    }
    inbox.send_to(b"question", (scene.outside(), 53))?;
    let (_, asker) = outbox.recv_from(&mut [0; 64])?;
    assert_eq!(asker.ip(), nodes_own);
    outbox.send_to(&[7; 8000], asker)?;
    assert_eq!(inbox.recv(&mut [0; 9000])?, 8000);
    Ok(())
}

fn pods_of_ipv4_reach_ipv6_destinations() -> Outcome {
    reach(Family::V4)
}

fn pods_of_ipv6_reach_ipv4_destinations() -> Outcome {
    reach(Family::V6)
}

/// Like a stub resolver: a reply from another address is ignored.
fn pods_of_ipv6_ask_the_resolvers_of_the_vpc() -> Outcome {
    let scene = scene(Family::V6)?;
    let pod = scene.node.add_pod("pod")?;
    let address = [192, 0, 2, 7];
    let mut names = scene.lab.sim.names();
    names.insert("db.example".to_owned(), vec![address.into()]);
    drop(names);
    let mut query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0".to_vec();
    query.extend(b"\x02db\x07example\0\0\x01\0\x01");
    for resolver in ["169.254.169.253:53", "10.0.0.2:53"] {
        let socket = pod.netns.run(|| UdpSocket::bind("0.0.0.0:0"))??;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(resolver)?;
        socket.send(&query)?;
        let mut reply = [0; 512];
        let len = socket.recv(&mut reply)?;
        assert_eq!(reply[..2], query[..2], "{resolver}");
        assert!(reply[..len].ends_with(&address), "{resolver}");
    }
    Ok(())
}

fn nobody(family: Family) -> Outcome {
    let scene = scene(family)?;
    let (node, other) = (&scene.node, scene.other());
    let pods = [node.add_pod("pod0")?, node.add_pod("pod1")?];
    let own =
        [egress(&pods[0], other)?, egress(&pods[1], other)?].map(|own| own.expect("it has one"));
    assert_ne!(own[0], own[1]);
    let at = SocketAddr::from((own[0], PORT));
    let listener = pods[0].netns.run(|| TcpListener::bind(at))??;
    let from_itself = pods[0]
        .netns
        .run(|| TcpStream::connect_timeout(&at, LIMIT))?;
    assert!(from_itself.is_ok(), "the listener is there");
    drop(listener.accept()?);
    // Another pod and a neighbour are forwarded; the node is on the output path.
    let neighbour = neighbour(node, own[0])?;
    for (what, netns) in [
        ("another pod", &pods[1].netns),
        ("a neighbour", &neighbour),
        ("the node", node.netns()),
    ] {
        let dialled = netns.run(|| TcpStream::connect_timeout(&at, BRIEFLY))?;
        assert!(dialled.is_err(), "{what} reaches {at}");
        let answer = ping(netns, None, own[0], BRIEFLY);
        assert!(!matches!(answer, Ok(Some(_))), "{what} pings {at}");
    }
    // A pod's own address is no source for packets of another one.
    let forged = format!(
        "ip addr add {}/{} dev eth0 {}; ",
        own[0],
        if own[0].is_ipv6() { 128 } else { 32 },
        if own[0].is_ipv6() { "nodad" } else { "" }
    );
    inside(&pods[1].netns, &forged)?;
    let stolen = ping(&pods[1].netns, Some(own[0]), scene.outside(), BRIEFLY);
    assert!(!matches!(stolen, Ok(Some(_))), "a pod uses {}", own[0]);
    assert!(ping(&pods[0].netns, None, scene.outside(), LIMIT)?.is_some());
    Ok(())
}

/// A host on a link of the node's own, to which the node is the router of this address's family.
fn neighbour(node: &Node, to: IpAddr) -> io::Result<Netns> {
    let host = Netns::create()?;
    let end = |name| netlink::link::End {
        name,
        mtu: None,
        mac: None,
        group: 0,
        up: false,
    };
    let pair = netlink::link::add_veth(&end("beside"), &end("eth0"), Some(host.as_fd()));
    let made = Socket::open_in(node.netns()).and_then(|mut socket| socket.apply(&pair));
    made.map_err(io::Error::other)?;
    let (addresses, route) = match to {
        IpAddr::V4(_) => (["192.0.2.1/24", "192.0.2.2/24"], "192.0.2.1"),
        IpAddr::V6(_) => (
            ["2001:db8:9::1/64 nodad", "2001:db8:9::2/64 nodad"],
            "2001:db8:9::1",
        ),
    };
    inside(
        node.netns(),
        &format!(
            "ip addr add {} dev beside; ip link set beside up",
            addresses[0]
        ),
    )?;
    inside(
        &host,
        &format!(
            "ip addr add {} dev eth0; ip link set eth0 up; ip route add default via {route}",
            addresses[1]
        ),
    )?;
    let gateway: IpAddr = route.parse().map_err(io::Error::other)?;
    match ping(&host, None, gateway, LIMIT)? {
        Some(_) => Ok(host),
        None => Err(io::Error::other("the neighbour does not reach the node")),
    }
}

fn nobody_reaches_a_pod_of_ipv4_by_its_other_address() -> Outcome {
    nobody(Family::V4)
}

fn nobody_reaches_a_pod_of_ipv6_by_its_other_address() -> Outcome {
    nobody(Family::V6)
}

/// A link behind the destination's router is narrower than all others, and its far end does not know. The router says so in an
/// ICMP error, which the node translates back. Without it, no full segment would arrive.
fn path_mtu(family: Family) -> Outcome {
    const NARROW: u32 = 1400;
    let scene = scene(family)?;
    let pod = scene.node.add_pod("pod")?;
    let (internet, far) = (scene.lab.sim.internet(), Netns::create()?);
    let end = |name, mtu| netlink::link::End {
        name,
        mtu: Some(mtu),
        mac: None,
        group: 0,
        up: false,
    };
    let (near_end, far_end) = (end("narrow", NARROW), end("eth0", 9001));
    let pair = netlink::link::add_veth(&near_end, &far_end, Some(far.as_fd()));
    let made = Socket::open_in(internet).and_then(|mut socket| socket.apply(&pair));
    made.map_err(io::Error::other)?;
    let (router, behind, host): (_, _, IpAddr) = match family {
        Family::V4 => (
            "sysctl -qw net.ipv6.conf.all.forwarding=1; ip addr add fdff::1/64 dev narrow nodad; ip link set narrow up; \
             nft 'add table ip6 far; add chain ip6 far pre { type nat hook prerouting priority -100; }; \
             add rule ip6 far pre tcp dport 7000 dnat to [fdff::2]:7000'",
            "ip addr add fdff::2/64 dev eth0 nodad; ip link set eth0 up; ip route add default via fdff::1",
            "fdff::2".parse()?,
        ),
        Family::V6 => (
            "sysctl -qw net.ipv4.ip_forward=1; ip addr add 192.0.2.1/24 dev narrow; ip link set narrow up; \
             nft 'add table ip far; add chain ip far pre { type nat hook prerouting priority -100; }; \
             add rule ip far pre tcp dport 7000 dnat to 192.0.2.2:7000'",
            "ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up; ip route add default via 192.0.2.1",
            "192.0.2.2".parse()?,
        ),
    };
    inside(internet, router)?;
    inside(&far, behind)?;
    let listener = far.run(|| TcpListener::bind((host, PORT)))??;
    let received = std::thread::spawn(move || -> io::Result<usize> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.read_to_end(&mut Vec::new())
    });
    let to = SocketAddr::from((scene.outside(), PORT));
    let mut stream = pod.netns.run(|| TcpStream::connect_timeout(&to, LIMIT))??;
    stream.set_write_timeout(Some(LIMIT))?;
    stream.write_all(&vec![1; 1 << 20])?;
    drop(stream);
    assert_eq!(received.join().expect("no panic")?, 1 << 20);
    let learned = inside(&pod.netns, &format!("ip route get {}", scene.outside()))?;
    assert!(learned.contains(&format!("mtu {NARROW}")), "{learned}");
    Ok(())
}

fn path_mtu_is_learned_by_pods_of_ipv4() -> Outcome {
    path_mtu(Family::V4)
}

fn path_mtu_is_learned_by_pods_of_ipv6() -> Outcome {
    path_mtu(Family::V6)
}

fn the_other_family_outlasts_daemons_and_lost_records() -> Outcome {
    for family in [Family::V4, Family::V6] {
        let mut scene = scene(family)?;
        let (other, outside) = (scene.other(), scene.outside());
        let old = scene.node.add_pod("old")?;
        let own = egress(&old, other)?;
        for lost in [false, true] {
            scene.node.kill_daemon()?;
            if lost {
                std::fs::remove_file(scene.node.state_file())?;
            }
            scene.node.start_daemon(&scene.lab.sim.ec2_endpoint())?;
            assert!(ping(&old.netns, None, outside, LIMIT)?.is_some(), "{lost}");
            let new = scene.node.add_pod(&format!("new-{lost}"))?;
            assert_ne!(egress(&new, other)?, own, "{lost}");
            assert!(ping(&new.netns, None, outside, LIMIT)?.is_some());
            scene.node.delete_pod(new)?;
        }
        assert_eq!(
            routed(&scene.node, other)?,
            own.into_iter().collect::<Vec<_>>()
        );
        scene.node.delete_pod(old)?;
        assert_eq!(routed(&scene.node, other)?, Vec::<IpAddr>::new());
    }
    Ok(())
}

fn what_others_remove_of_the_other_family_is_restored() -> Outcome {
    for family in [Family::V4, Family::V6] {
        let scene = scene(family)?;
        let node = &scene.node;
        let pod = node.add_pod("pod")?;
        let (flag, table) = match family {
            Family::V4 => ("-6", "ip6"),
            Family::V6 => ("-4", "ip"),
        };
        let link = host_link(&pod);
        let state = format!(
            "ip {flag} rule | sort; ip {flag} route show table {PODS_TABLE}; ip {flag} neigh show dev {link} nud permanent; nft list table {table} hawser"
        );
        let right = node.shell(&state)?;
        for damage in [
            format!("ip {flag} rule del pref 512"),
            format!("ip {flag} route flush table {PODS_TABLE}"),
            format!("nft delete table {table} hawser"),
            format!("nft flush chain {table} hawser no_inbound"),
            format!("ip {flag} neigh flush dev {link} nud permanent"),
        ] {
            node.shell(&damage)?;
            let whole = || node.shell(&state).is_ok_and(|now| now == right);
            assert!(
                eventually(LIMIT, whole),
                "{damage}\n{}\n{right}",
                node.shell(&state)?
            );
            let out = ping(&pod.netns, None, scene.outside(), LIMIT)?;
            assert!(out.is_some(), "no traffic after {damage}");
        }
    }
    Ok(())
}

fn switched_off_it_is_kept_by_old_pods_only() -> Outcome {
    for family in [Family::V4, Family::V6] {
        let mut scene = scene(family)?;
        let (other, outside) = (scene.other(), scene.outside());
        let old = scene.node.add_pod("old")?;
        let setting = match family {
            Family::V4 => "ENABLE_V6_EGRESS",
            Family::V6 => "ENABLE_V4_EGRESS",
        };
        scene.node.set(setting, "false");
        scene.restart()?;
        assert!(ping(&old.netns, None, outside, LIMIT)?.is_some());
        let new = scene.node.add_pod("new")?;
        assert_eq!(egress(&new, other)?, None);
        assert!(!matches!(
            ping(&new.netns, None, outside, BRIEFLY),
            Ok(Some(_))
        ));
        // Without such pods, nothing of it is left.
        scene.node.delete_pod(old)?;
        scene.restart()?;
        assert!(!scene.node.shell("nft list ruleset")?.contains("masquerade"));
        assert_eq!(routed(&scene.node, other)?, Vec::<IpAddr>::new());
        scene.node.set(setting, "true");
        scene.restart()?;
        let last = scene.node.add_pod("last")?;
        assert!(ping(&last.netns, None, outside, LIMIT)?.is_some());
    }
    Ok(())
}

/// The pod, or its runtime, has switched IPv6 off before the ADD.
fn a_pod_without_ipv6_is_served_without_the_way_to_it() -> Outcome {
    let scene = scene(Family::V4)?;
    let node = &scene.node;
    for n in 0..3 {
        let id = format!("pod{n}");
        let (netns, path) = node.sandbox(&id)?;
        inside(
            &netns,
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1",
        )?;
        let added = node.invocation("ADD", &id, Some(&path)).run(node.netns())?;
        assert!(added.succeeded(), "{added:?}");
        let pod = Pod {
            id,
            netns,
            path,
            asked: serde_json::Value::Null,
            added,
        };
        assert_eq!(egress(&pod, Family::V6)?, None);
        assert!(ping(node.netns(), None, pod.address(), LIMIT)?.is_some());
        let check = node.invocation("CHECK", &pod.id, Some(&pod.path));
        let checked = check
            .conf("prevResult", pod.added.json.clone())
            .run(node.netns())?;
        assert!(checked.succeeded(), "{checked:?}");
        node.delete_pod(pod)?;
    }
    assert_eq!(routed(node, Family::V6)?, Vec::<IpAddr>::new());
    assert_eq!(count(node, "assigned")?, 0);
    Ok(())
}

/// Rules of both kinds. Routes are one per pod.
fn the_number_of_rules_does_not_grow_with_pods() -> Outcome {
    let rules = "ip rule; ip -6 rule; nft list ruleset";
    let lab = Lab::start(SimConfig::dual_stack())?;
    // No second ENI, which has rules of its own.
    let prefixes = [("ENABLE_PREFIX_DELEGATION", "true"), ("MAX_ENI", "1")];
    let of_ipv4 = [&TO_IPV6[..], &prefixes].concat();
    for settings in [&of_ipv4[..], &ipv6::SIX] {
        let node = lab.node("m5.xlarge", settings)?;
        let _one = node.add_pod("pod0")?;
        let with_one = node.shell(rules)?.lines().count();
        let pods = (1..110).map(|n| node.add_pod(&format!("pod{n}")));
        let pods = pods.collect::<io::Result<Vec<_>>>()?;
        assert_eq!(node.shell(rules)?.lines().count(), with_one);
        let last = pods.last().expect("there are many");
        for outside in [IpAddr::from(INTERNET_ADDRESS), INTERNET_ADDRESS_V6.into()] {
            assert!(
                ping(&last.netns, None, outside, LIMIT)?.is_some(),
                "{outside}"
            );
        }
    }
    Ok(())
}
