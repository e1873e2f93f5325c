//! The tests of the AWS VPC CNI's IPv6 suite in which the address family could matter: services and NodePorts in both
//! of kube-proxy's modes, TCP and large datagrams, MTUs, and the verbs that compare or clean up.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use datapath::netlink::{
    Family, Socket,
    addr::{self, Address},
};
use lab::{
    Lab,
    node::{Node, Pod, count},
    traffic::{
        kube_proxy::{Proxy, Service, program},
        tcp_probe::{Listener, TcpConnection},
    },
};
use serde_json::json;
use vpc_sim::fabric::INTERNET_ADDRESS_V6;

use crate::{
    suite::{Outcome, trials},
    support::ipv6::{SIX, own, start},
};

trials!(
    a_service_leads_to_pods_of_this_node_and_of_the_other,
    a_node_port_leads_to_pods_of_this_node_and_of_the_other,
    links_are_named_and_sized_as_told,
    check_reports_removed_objects,
    gc_keeps_the_listed_and_frees_the_rest,
    ipv6_is_switched_on_in_a_pod_whose_namespace_has_it_off,
);

const PORT: u16 = 80;
const LIMIT: Duration = Duration::from_secs(10);
const CLUSTER_IP: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, 0x80);
/// (IPVS with its local addresses is not a separate case here, because nothing is marked.)
const PROXIES: [Proxy; 2] = [Proxy::Iptables, Proxy::Nftables];

/// A pod on each of two nodes, all of which answer.
struct Scene {
    lab: Lab,
    a: Node,
    b: Node,
    on_a: Pod,
    on_b: Pod,
    _listeners: Vec<Listener>,
}

impl Scene {
    fn set() -> std::io::Result<Self> {
        let lab = start()?;
        let (a, b) = (lab.node("m5.large", &SIX)?, lab.node("m5.large", &SIX)?);
        let (on_a, on_b) = (a.add_pod("near")?, b.add_pod("far")?);
        let at = |address| SocketAddr::from((address, PORT));
        let listeners = [
            Listener::start(&on_a.netns, at(on_a.address()), "near"),
            Listener::start(&on_b.netns, at(on_b.address()), "far"),
            Listener::start(
                lab.sim.internet(),
                at(INTERNET_ADDRESS_V6.into()),
                "internet",
            ),
        ];
        let listeners = listeners.into_iter().collect::<Result<_, _>>()?;
        Ok(Self {
            lab,
            a,
            b,
            on_a,
            on_b,
            _listeners: listeners,
        })
    }

    /// Services of node `a`: one for each of the two pods.
    fn services(&self, at: IpAddr, from: u16, masquerade: bool) -> Vec<Service> {
        let pods = [&self.on_a, &self.on_b].into_iter();
        let service = |(port, pod): (u16, &Pod)| Service {
            at: (at, port).into(),
            endpoint: (pod.address(), PORT).into(),
            masquerade,
        };
        (from..).zip(pods).map(service).collect()
    }
}

/// Connects from `netns`; returns who answered and which source address it saw.
fn call(netns: &datapath::netns::Netns, to: SocketAddr) -> std::io::Result<(String, IpAddr)> {
    let mut call = TcpConnection::start(netns, None, to, LIMIT)?;
    call.echoes()?;
    Ok((call.with.clone(), call.seen_as.ip()))
}

fn a_service_leads_to_pods_of_this_node_and_of_the_other() -> Outcome {
    let scene = Scene::set()?;
    let caller = scene.a.add_pod("caller")?;
    for proxy in PROXIES {
        let services = scene.services(CLUSTER_IP.into(), 8000, false);
        program(scene.a.netns(), proxy, &services)?;
        for (service, pod) in services.iter().zip(["near", "far"]) {
            let answer = call(&caller.netns, service.at)?;
            assert_eq!(answer, (pod.to_owned(), caller.address()), "{proxy:?}");
            let answer = call(scene.a.netns(), service.at)?;
            assert_eq!(answer, (pod.to_owned(), own(&scene.a)), "{proxy:?}");
        }
    }
    // And without a service: to the internet with its own address.
    let outside = SocketAddr::from((INTERNET_ADDRESS_V6, PORT));
    let answer = call(&caller.netns, outside)?;
    assert_eq!(answer, ("internet".to_owned(), caller.address()));
    Ok(())
}

fn a_node_port_leads_to_pods_of_this_node_and_of_the_other() -> Outcome {
    let scene = Scene::set()?;
    for proxy in PROXIES {
        // externalTrafficPolicy: Local uses only pods of the node, which see the client.
        let services = scene.services(own(&scene.a), 30000, false);
        program(scene.a.netns(), proxy, &services[..1])?;
        for (client, address) in [
            (scene.lab.sim.internet(), INTERNET_ADDRESS_V6.into()),
            (scene.b.netns(), own(&scene.b)),
            (&scene.on_b.netns, scene.on_b.address()),
        ] {
            let answer = call(client, services[0].at)?;
            assert_eq!(answer, ("near".to_owned(), address), "{proxy:?}, Local");
        }
        // Cluster: uses any pod, which sees the node.
        let services = scene.services(own(&scene.a), 30000, true);
        program(scene.a.netns(), proxy, &services)?;
        for (service, pod) in services.iter().zip(["near", "far"]) {
            let answer = call(scene.lab.sim.internet(), service.at)?;
            let expected = (pod.to_owned(), own(&scene.a));
            assert_eq!(answer, expected, "{proxy:?}, Cluster");
        }
    }
    Ok(())
}

fn links_are_named_and_sized_as_told() -> Outcome {
    let lab = start()?;
    let told = [
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
        ("AWS_VPC_ENI_MTU", "1600"),
        ("POD_MTU", "1400"),
    ];
    let (a, b) = (
        lab.node("m5.large", &[&SIX[..], &told].concat())?,
        lab.node("m5.large", &SIX)?,
    );
    let (near, far) = (a.add_pod("near")?, b.add_pod("far")?);
    let mut host = Socket::open_in(a.netns())?;
    let links = host.links()?;
    let mtu = |prefix: &str| -> Vec<u32> {
        let named = links.iter().filter(|link| link.name.starts_with(prefix));
        named.map(|link| link.mtu).collect()
    };
    assert_eq!((mtu("eth"), mtu("pod")), (vec![1600], vec![1400]));
    let inside = Socket::open_in(&near.netns)?.link_by_name("eth0")?;
    assert_eq!(inside.map(|link| link.mtu), Some(1400));
    // Larger ones are sent in fragments by the sender: IPv6 routers do not fragment.
    let ear = far.netns.run(|| UdpSocket::bind((far.address(), PORT)))??;
    ear.set_read_timeout(Some(LIMIT))?;
    let mouth = near.netns.run(|| UdpSocket::bind((near.address(), 0)))??;
    mouth.send_to(&[7; 8000], ear.local_addr()?)?;
    let mut room = vec![0; 10_000];
    let (length, from) = ear.recv_from(&mut room)?;
    assert_eq!((length, from), (8000, mouth.local_addr()?));
    Ok(())
}

fn check_reports_removed_objects() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let pod = node.add_pod("a")?;
    let check = || {
        let check = node.invocation("CHECK", "a", Some(&pod.path));
        check
            .conf("prevResult", pod.added.json.clone())
            .run(node.netns())
    };
    let fine = check()?;
    assert!(fine.succeeded(), "{fine:?}");
    let mut inside = Socket::open_in(&pod.netns)?;
    let eth0 = inside.link_by_name("eth0")?.expect("wired").index;
    let addresses = inside.addresses(Family::V6, Some(eth0))?;
    inside.apply(&addr::del(&Address::host(eth0, pod.address())))?;
    let drifted = check()?;
    let text = drifted.error_text();
    assert!(
        drifted.error_code().is_some_and(|code| code >= 100),
        "{drifted:?}"
    );
    assert!(
        text.contains(&format!("has no address {}", pod.address())),
        "{text}"
    );
    inside.apply(&addr::add(&addresses[0]))?;
    let whole = check()?;
    assert!(whole.succeeded(), "{whole:?}");
    Ok(())
}

fn gc_keeps_the_listed_and_frees_the_rest() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let (a, b) = (node.add_pod("a")?, node.add_pod("b")?);
    let valid = json!([{ "containerID": "a", "ifname": "eth0" }]);
    let gc = node.invocation("GC", "", None);
    let gc = gc.conf("cniVersion", json!("1.1.0"));
    let cleaned = gc
        .conf("cni.dev/valid-attachments", valid)
        .run(node.netns())?;
    assert!(cleaned.succeeded(), "{cleaned:?}");
    assert_eq!(count(&node, "assigned")?, 1);
    let kept = node.invocation("ADD", "a", Some(&a.path));
    assert_eq!(kept.run(node.netns())?.address(), a.address());
    let routes = Socket::open_in(node.netns())?.routes(Family::V6, None)?;
    assert!(routes.iter().all(|route| route.dst.addr() != b.address()));
    Ok(())
}

/// Some runtimes disable IPv6 in new sandboxes; the AWS VPC CNI enables it again in an IPv6 pod. The daemon cannot do
/// this, so the network configuration tells the plugin to do it.
fn ipv6_is_switched_on_in_a_pod_whose_namespace_has_it_off() -> Outcome {
    let lab = start()?;
    let node = lab.node("m5.large", &SIX)?;
    let (netns, path) = node.sandbox("off")?;
    for links in ["all", "default", "lo"] {
        let file = format!("/proc/sys/net/ipv6/conf/{links}/disable_ipv6");
        netns.run(|| std::fs::write(file, "1"))??;
    }
    let add = || node.invocation("ADD", "off", Some(&path));
    let refused = add().run(node.netns())?;
    assert!(!refused.succeeded(), "the namespace has IPv6");
    let added = add().conf("ipv6", json!(true)).run(node.netns())?;
    assert!(added.succeeded(), "{added:?}");
    let there = lab::traffic::ping::ping(node.netns(), None, added.address(), LIMIT)?;
    assert!(there.is_some());
    Ok(())
}
