//! Host ports: from every side, with every protocol, beside services of kube-proxy, and closed to where they do not lead.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use lab::{
    Lab,
    node::{Node, Pod},
    traffic::{
        kube_proxy::{Proxy, Service, program},
        node_pair::{Endpoint, NodePair, PORT},
        tcp_probe::{Listener, TcpConnection},
        udp_probe::{Caller, Responder},
    },
    wait::eventually,
};
use serde_json::{Value, json};
use vpc_sim::{SimConfig, fabric::INTERNET_ADDRESS_V6};

use crate::{
    suite::{Outcome, trials},
    support::{
        bandwidth::limited,
        ipv6::{SIX, own, start},
    },
};

trials!(
    a_host_port_leads_to_its_pod_from_everywhere,
    replies_leave_by_the_primary_eni_without_node_port_support,
    a_service_on_the_same_port_comes_first,
    a_service_of_ipv6_on_the_same_port_comes_first,
    a_host_port_of_one_address_is_closed_on_others,
    the_nodes_loopback_stays_closed_to_pods,
    udp_clients_follow_the_port_from_pod_to_pod,
    udp_clients_follow_a_port_whose_daemon_was_killed,
    a_host_port_of_ipv6_leads_to_its_pod_from_everywhere,
    the_number_of_rules_does_not_depend_on_the_number_of_pods,
);

const LIMIT: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(700);
/// Of datagrams, each with its own patience.
const TRIES: u32 = 30;

/// A pod's own host port, for TCP and UDP.
fn port_of(id: &str) -> u16 {
    match id.strip_prefix("pod").and_then(|n| n.parse::<u16>().ok()) {
        Some(n) => 8001 + n,
        None => 8000,
    }
}

fn asking(id: &str) -> Value {
    mappings(port_of(id), None)
}

fn mappings(port: u16, host_ip: Option<IpAddr>) -> Value {
    let host_ip = host_ip.map_or(String::new(), |address| address.to_string());
    let of = |protocol: &str| json!({ "hostPort": port, "containerPort": PORT, "protocol": protocol, "hostIP": host_ip });
    json!({ "portMappings": [of("tcp"), of("udp")] })
}

/// A pair whose pods on node `a` have host ports, and answer to UDP too.
fn start_pair(settings: &[(&str, &str)]) -> io::Result<(NodePair, Vec<Responder>)> {
    let pair = NodePair::start_asking(settings, asking)?;
    let udp = Endpoint::ON_A
        .map(|pod| Responder::start(pair.netns(pod), pair.at(pod), &format!("{pod:?}")));
    let udp = udp.into_iter().collect::<io::Result<_>>()?;
    Ok((pair, udp))
}

/// Where this pod of node `a` is reached by its host port.
fn at(pair: &NodePair, pod: Endpoint) -> SocketAddr {
    let [primary, secondary] = &pair.on_a;
    let id = match pod {
        Endpoint::APrimary => &primary.id,
        _ => &secondary.id,
    };
    (pair.address(Endpoint::A), port_of(id)).into()
}

/// Both protocols, from one caller to one pod's port at this address of the node.
fn expect(pair: &mut NodePair, from: Endpoint, (pod, at): (Endpoint, SocketAddr), seen: Endpoint) {
    pair.expect("TCP", from, at, (pod, seen));
    let answer = Caller::new(pair.netns(from), at).and_then(|caller| caller.call(TRIES));
    let wanted = (format!("{pod:?}"), IpAddr::from(pair.address(seen)));
    let wrong = match answer {
        Ok(answer) if answer == wanted => return,
        other => io::Error::other(format!("{other:?} and not {wanted:?}")),
    };
    pair.note(&format!("UDP: {from:?} calls {at}"), Err(wrong));
}

fn everywhere(pair: &mut NodePair) {
    use Endpoint as E;
    for pod in E::ON_A {
        let at = at(pair, pod);
        let local = SocketAddr::from((Ipv4Addr::LOCALHOST, at.port()));
        // From outside, and from other nodes and their pods, the pod sees the caller.
        for from in [E::Internet, E::B, E::BPrimary, E::BSecondary] {
            expect(pair, from, (pod, at), from);
        }
        // From the node itself, at its own address and at its loopback.
        expect(pair, E::A, (pod, at), E::A);
        expect(pair, E::A, (pod, local), E::A);
        // From each pod of the node. If it is the pod itself, it sees the node.
        for from in E::ON_A {
            let seen = if from == pod { E::A } else { from };
            expect(pair, from, (pod, at), seen);
        }
    }
    keep_busy(pair);
}

/// Replies leave only by the primary ENI; the verdict requires traffic on the other one too.
fn keep_busy(pair: &mut NodePair) {
    let (pod, to) = (Endpoint::ASecondary, pair.at(Endpoint::B));
    pair.expect("a pod", pod, to, (Endpoint::B, pod));
}

fn a_host_port_leads_to_its_pod_from_everywhere() -> Outcome {
    let (mut pair, _udp) = start_pair(&[])?;
    everywhere(&mut pair);
    Ok(pair.verdict()?)
}

/// With neither of the two settings, nothing else marks connections.
fn replies_leave_by_the_primary_eni_without_node_port_support() -> Outcome {
    for settings in [
        &[("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false")][..],
        &[
            ("AWS_VPC_CNI_NODE_PORT_SUPPORT", "false"),
            ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        ],
    ] {
        let (mut pair, _udp) = start_pair(settings)?;
        everywhere(&mut pair);
        pair.verdict()?;
    }
    Ok(())
}

/// As with kube-proxy and the standard plugin `portmap`.
fn a_service_on_the_same_port_comes_first() -> Outcome {
    let (mut pair, _udp) = start_pair(&[])?;
    for proxy in Proxy::ALL {
        let (one, other) = (Endpoint::APrimary, Endpoint::ASecondary);
        let service = Service {
            at: at(&pair, one),
            endpoint: pair.at(other),
            masquerade: false,
        };
        program(pair.a.netns(), proxy, &[service])?;
        let client = Endpoint::Internet;
        pair.expect(&format!("{proxy:?}"), client, service.at, (other, client));
        let port = at(&pair, other);
        pair.expect(
            &format!("{proxy:?}, its own"),
            client,
            port,
            (other, client),
        );
    }
    // On its own address, which the node has too.
    let (one, other) = (Endpoint::APrimary, Endpoint::ASecondary);
    let cluster_ip = SocketAddr::from(([172, 20, 0, 10], at(&pair, one).port()));
    let service = Service {
        at: cluster_ip,
        endpoint: pair.at(Endpoint::B),
        masquerade: false,
    };
    program(pair.a.netns(), Proxy::LocalAddress, &[service])?;
    let known = || {
        let services = pair.a.shell("nft list set ip hawser_ports services");
        services.is_ok_and(|text| text.contains("172.20.0.10"))
    };
    assert!(eventually(LIMIT, known), "{}", pair.a.log());
    // As IPVS does it: after the hooks of nftables.
    pair.a.shell("nft delete table ip kube-proxy")?;
    let listening = Listener::start(pair.a.netns(), cluster_ip, "ipvs")?;
    let answer = TcpConnection::start(pair.netns(other), None, cluster_ip, LIMIT)?;
    assert_eq!(answer.with, "ipvs");
    drop(listening);
    program(pair.a.netns(), Proxy::Iptables, &[])?;
    let (pod, client) = (Endpoint::APrimary, Endpoint::Internet);
    let port = at(&pair, pod);
    pair.expect("without the service", client, port, (pod, client));
    keep_busy(&mut pair);
    Ok(pair.verdict()?)
}

fn a_service_of_ipv6_on_the_same_port_comes_first() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let holder = node.add_pod_asking("holder", &mappings(8080, None))?;
    let backend = node.add_pod("backend")?;
    let at = |pod: &Pod| SocketAddr::from((pod.address(), PORT));
    let _listeners = [&holder, &backend]
        .map(|pod| Listener::start(&pod.netns, at(pod), &pod.id))
        .into_iter()
        .collect::<io::Result<Vec<_>>>()?;
    let service = Service {
        at: (own(&node), 8080).into(),
        endpoint: at(&backend),
        masquerade: false,
    };
    let answers = || {
        let reached = TcpConnection::start(lab.sim.internet(), None, service.at, LIMIT);
        reached.map(|connection| connection.with.clone())
    };
    assert_eq!(answers()?, "holder");
    for proxy in [Proxy::Iptables, Proxy::Nftables] {
        program(node.netns(), proxy, &[service])?;
        assert_eq!(answers()?, "backend", "{proxy:?}");
    }
    node.shell("nft delete table ip6 kube-proxy")?;
    assert_eq!(answers()?, "holder");
    Ok(())
}

fn a_host_port_of_one_address_is_closed_on_others() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let node = lab.node("m5.large", &[])?;
    let own = IpAddr::from(node.instance.address);
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let bind = |id: &str, address| node.add_pod_asking(id, &mappings(8080, Some(address)));
    let (on_own, on_local) = (bind("own", own)?, bind("local", local)?);
    let listen = |pod: &Pod| Listener::start(&pod.netns, (pod.address(), PORT).into(), &pod.id);
    let _listeners = [listen(&on_own)?, listen(&on_local)?];
    let call = |to: IpAddr| TcpConnection::start(node.netns(), None, (to, 8080).into(), SHORT);
    assert_eq!(call(own)?.with, "own");
    assert_eq!(call(local)?.with, "local");
    assert!(call(Ipv4Addr::new(127, 0, 0, 2).into()).is_err());
    Ok(())
}

/// What a pod must do to send to the node's 127.0.0.1, and what a program on the node must not see.
const TO_LOOPBACK: &str = "ip addr del 127.0.0.1/8 dev lo 2> /dev/null || true; \
    ip route flush table local type local 127.0.0.0/8 2> /dev/null || true; \
    echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet; \
    ip route add 127.0.0.1 via 169.254.1.1 dev eth0";

fn the_nodes_loopback_stays_closed_to_pods() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &[])?;
    node.shell("ip link set lo up")?;
    let pod = node.add_pod_asking("pod0", &asking("pod0"))?;
    let secret = SocketAddr::from((Ipv4Addr::LOCALHOST, 10_250));
    let _secret = Listener::start(node.netns(), secret, "secret")?;
    assert_eq!(
        TcpConnection::start(node.netns(), None, secret, LIMIT)?.with,
        "secret"
    );
    let shell = |command: &str| {
        let mut shell = std::process::Command::new("sh");
        shell.args(["-ec", command]);
        pod.netns.run(move || shell.status())?
    };
    assert!(shell(TO_LOOPBACK)?.success());
    let call = || {
        let from = Some(pod.address());
        TcpConnection::start(&pod.netns, from, secret, SHORT).is_ok()
    };
    assert!(!call(), "the pod reaches the node's loopback");
    // The rule is what closes it.
    node.kill_daemon()?;
    node.shell("nft flush chain ip hawser_ports guard_loopback")?;
    assert!(call(), "the test cannot fail");
    Ok(())
}

/// A client that keeps its port has a connection in the kernel, which decides where the port leads.
fn udp_clients_follow_the_port_from_pod_to_pod() -> Outcome {
    let lab = start()?;
    for settings in [&[][..], &SIX[..]] {
        let node = lab.node("m5.large", settings)?;
        let at = match settings {
            [] => node.instance.address.into(),
            _ => own(&node),
        };
        let caller = Caller::new(lab.sim.internet(), (at, 8080).into())?;
        // A connection to the node itself, before any pod has the port.
        assert!(caller.call(2).is_err());
        for id in ["first", "second"] {
            let pod = node.add_pod_asking(id, &mappings(8080, None))?;
            let _udp = Responder::start(&pod.netns, (pod.address(), PORT).into(), id)?;
            assert_eq!(caller.call(TRIES)?.0, id);
            node.delete_pod(pod)?;
            // Not every kernel has the file.
            let known = "grep -c 'udp.*dport=8080' /proc/net/nf_conntrack || true";
            let none = || {
                node.shell(known)
                    .is_ok_and(|n| ["", "0"].contains(&n.trim()))
            };
            assert!(eventually(LIMIT, none), "{}", node.log());
        }
    }
    Ok(())
}

/// The daemon deletes connections a moment after the ADD. It is killed before that.
fn udp_clients_follow_a_port_whose_daemon_was_killed() -> Outcome {
    let lab = Lab::start(SimConfig::default())?;
    let mut node = lab.node("m5.large", &[])?;
    let (port, client) = (8080, lab.sim.internet());
    let caller = Caller::new(client, (node.instance.address, port).into())?;
    assert!(caller.call(2).is_err());
    let pod = node.add_pod_asking("pod", &mappings(port, None))?;
    node.kill_daemon()?;
    let _udp = Responder::start(&pod.netns, (pod.address(), PORT).into(), "pod")?;
    node.start_daemon(&lab.sim.ec2_endpoint())?;
    assert_eq!(caller.call(TRIES)?.0, "pod");
    Ok(())
}

fn a_host_port_of_ipv6_leads_to_its_pod_from_everywhere() -> Outcome {
    let lab = start()?;
    let (a, b) = (lab.node("m5.large", &SIX)?, lab.node("m5.large", &SIX)?);
    let (near, other) = (
        a.add_pod_asking("near", &mappings(8080, None))?,
        a.add_pod_asking("other", &mappings(8081, Some(own(&a))))?,
    );
    let far = b.add_pod("far")?;
    let at = |pod: &Pod| SocketAddr::from((pod.address(), PORT));
    let mut servers = Vec::new();
    for pod in [&near, &other] {
        let tcp = Listener::start(&pod.netns, at(pod), &pod.id)?;
        let udp = Responder::start(&pod.netns, at(pod), &pod.id)?;
        servers.push((tcp, udp));
    }
    let callers = [
        (lab.sim.internet(), INTERNET_ADDRESS_V6.into()),
        (b.netns(), own(&b)),
        (&far.netns, far.address()),
        (a.netns(), own(&a)),
        (&near.netns, near.address()),
        (&other.netns, other.address()),
    ];
    for (pod, port) in [(&near, 8080), (&other, 8081)] {
        let to = SocketAddr::from((own(&a), port));
        for (from, address) in callers {
            // A pod that calls itself sees the node.
            let seen = if address == pod.address() {
                own(&a)
            } else {
                address
            };
            let tcp = TcpConnection::start(from, None, to, LIMIT)?;
            assert_eq!(
                (&*tcp.with, tcp.seen_as.ip()),
                (&*pod.id, seen),
                "from {address}"
            );
            let udp = Caller::new(from, to)?.call(TRIES)?;
            assert_eq!(udp, (pod.id.clone(), seen), "from {address}");
        }
    }
    let elsewhere: SocketAddr = "[::1]:8081".parse()?;
    assert!(TcpConnection::start(a.netns(), None, elsewhere, SHORT).is_err());
    Ok(())
}

fn rules(node: &Node) -> io::Result<(usize, usize)> {
    let nft = node.shell("nft -a list ruleset")?;
    let of_nft = nft.lines().filter(|line| line.contains("# handle")).count();
    let of_ip = node.shell("ip rule; ip -6 rule")?.lines().count();
    Ok((of_nft, of_ip))
}

fn everything(id: &str) -> Value {
    limited(asking(id), 1_000_000_000)
}

/// Of pods that ask for everything. All are on one ENI, because each ENI has rules of its own.
fn the_number_of_rules_does_not_depend_on_the_number_of_pods() -> Outcome {
    let four = [
        ("ENABLE_PREFIX_DELEGATION", "true"),
        ("WARM_IP_TARGET", "120"),
        ("ENABLE_V6_EGRESS", "true"),
    ];
    for settings in [&four[..], &SIX[..]] {
        let lab = Lab::start(SimConfig::dual_stack())?;
        let node = lab.node("m5.8xlarge", settings)?;
        let first = node.add_pod_asking("pod0", &everything("pod0"))?;
        let one = rules(&node)?;
        let more = (1..110).map(|n| {
            let id = format!("pod{n}");
            node.add_pod_asking(&id, &everything(&id))
        });
        let more: Vec<Pod> = more.collect::<io::Result<_>>()?;
        assert_eq!(rules(&node)?, one);
        let last = more.last().ok_or("no pods")?;
        let _listener = Listener::start(&last.netns, (last.address(), PORT).into(), "last")?;
        let at: IpAddr = match last.address() {
            IpAddr::V4(_) => node.instance.address.into(),
            IpAddr::V6(_) => own(&node),
        };
        let to = SocketAddr::from((at, port_of("pod109")));
        let reached = TcpConnection::start(lab.sim.internet(), None, to, LIMIT)?;
        assert_eq!(reached.with, "last");
        drop(first);
    }
    Ok(())
}
