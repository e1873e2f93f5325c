//! Through which ENI, and with which address, pods' connections leave: the decision table, row by row, for pods on the
//! primary and on a secondary ENI, with a capture on every ENI.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lab::traffic::{
    kube_proxy::{Proxy, Service, program},
    node_pair::{Endpoint, LIMIT, NodePair, PORT},
    ping::ping,
    tcp_probe::TcpConnection,
};

use crate::suite::{Outcome, trials};

trials!(
    every_row_of_the_table,
    services_lead_out_of_the_vpc_and_stay_in_it,
    services_of_the_node_itself_answer,
    excluded_destinations_see_the_pod,
    with_external_snat_everybody_sees_the_pod,
    the_nodes_own_traffic_keeps_its_address_and_port,
    source_ports_are_kept_or_random_as_configured,
    foreign_mark_bits_survive,
    another_mark_does_the_same,
    links_are_named_and_sized_as_told,
);

/// Only a service has this address.
const CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(172, 20, 0, 10);

fn cluster(port: u16) -> SocketAddr {
    SocketAddr::from((CLUSTER_IP, port))
}

fn every_row_of_the_table() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    for pod in Endpoint::ON_A {
        for within in [
            Endpoint::B,
            Endpoint::BPrimary,
            Endpoint::BSecondary,
            Endpoint::A,
            Endpoint::APrimary,
            Endpoint::ASecondary,
        ] {
            let to = pair.at(within);
            pair.expect("in the VPC", pod, to, (within, pod));
        }
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, Endpoint::A));
        for caller in [
            Endpoint::A,
            Endpoint::B,
            Endpoint::BPrimary,
            Endpoint::BSecondary,
            Endpoint::Internet,
        ] {
            let to = pair.at(pod);
            pair.expect("to the pod", caller, to, (pod, caller));
        }
    }
    Ok(pair.verdict()?)
}

fn services_lead_out_of_the_vpc_and_stay_in_it() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let endpoints = [
        Endpoint::Internet,
        Endpoint::B,
        Endpoint::BSecondary,
        Endpoint::APrimary,
        Endpoint::ASecondary,
    ];
    for proxy in Proxy::ALL {
        let services: Vec<_> = (8000..)
            .zip(endpoints)
            .map(|(port, endpoint)| Service {
                at: cluster(port),
                endpoint: pair.at(endpoint),
                masquerade: false,
            })
            .collect();
        program(pair.a.netns(), proxy, &services)?;
        for pod in Endpoint::ON_A {
            for (service, endpoint) in services.iter().zip(endpoints) {
                let seen_as = if endpoint == Endpoint::Internet {
                    Endpoint::A
                } else {
                    pod
                };
                // A pod that connects to itself needs its proxy's masquerade.
                if endpoint != pod {
                    pair.expect(&format!("{proxy:?}"), pod, service.at, (endpoint, seen_as));
                }
            }
        }
    }
    Ok(pair.verdict()?)
}

/// Like a DNS cache on each node, which has the DNS service's address on its own device.
fn services_of_the_node_itself_answer() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let none = Service {
        at: cluster(1),
        endpoint: cluster(1),
        masquerade: false,
    };
    program(pair.a.netns(), Proxy::LocalAddress, &[none])?;
    let _cache = lab::traffic::tcp_probe::Listener::start(pair.a.netns(), cluster(PORT), "A")?;
    for pod in Endpoint::ON_A {
        pair.expect(
            "a node's own service",
            pod,
            cluster(PORT),
            (Endpoint::A, pod),
        );
        let to = pair.at(Endpoint::Internet);
        pair.expect("and beyond", pod, to, (Endpoint::Internet, Endpoint::A));
        let to = pair.at(Endpoint::B);
        pair.expect("and besides", pod, to, (Endpoint::B, pod));
    }
    Ok(pair.verdict()?)
}

fn excluded_destinations_see_the_pod() -> Outcome {
    let list = "198.51.100.0/24, 203.0.113.0/24,fd00::/8";
    let mut pair = NodePair::start(&[("AWS_VPC_K8S_CNI_EXCLUDE_SNAT_CIDRS", list)])?;
    for pod in Endpoint::ON_A {
        let to = pair.at(Endpoint::Internet);
        pair.expect("excluded", pod, to, (Endpoint::Internet, pod));
        let to = pair.at(Endpoint::B);
        pair.expect("in the VPC", pod, to, (Endpoint::B, pod));
    }
    assert!(
        pair.a.log().contains("fd00::/8"),
        "the item that cannot be used must be named"
    );
    Ok(pair.verdict()?)
}

fn with_external_snat_everybody_sees_the_pod() -> Outcome {
    let settings = [
        ("AWS_VPC_K8S_CNI_EXTERNALSNAT", "true"),
        // The AWS VPC CNI needs it for services that lead out of the VPC; here it has no effect.
        ("AWS_EXTERNAL_SERVICE_CIDRS", "203.0.113.0/24"),
    ];
    let mut pair = NodePair::start(&settings)?;
    let service = Service {
        at: cluster(PORT),
        endpoint: pair.at(Endpoint::Internet),
        masquerade: false,
    };
    program(pair.a.netns(), Proxy::Iptables, &[service])?;
    for pod in Endpoint::ON_A {
        for to in [pair.at(Endpoint::Internet), service.at] {
            pair.expect("off the VPC", pod, to, (Endpoint::Internet, pod));
        }
        let to = pair.at(Endpoint::B);
        pair.expect("in the VPC", pod, to, (Endpoint::B, pod));
    }
    Ok(pair.verdict()?)
}

/// The AWS VPC CNI translates it too, to the same address; on a secondary ENI, to one that the VPC drops there.
fn the_nodes_own_traffic_keeps_its_address_and_port() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let own = {
        let world = pair.lab.sim.world();
        let eni = world.interface(&pair.secondary_in(&world)).cloned();
        eni.and_then(|eni| eni.primary())
            .ok_or("the ENI has no address")?
    };
    for source in [None, Some(own)] {
        let to = pair.at(Endpoint::Internet);
        let call =
            TcpConnection::start(pair.netns(Endpoint::A), source.map(IpAddr::V4), to, LIMIT)?;
        let address = source.unwrap_or(pair.address(Endpoint::A));
        assert_eq!(call.seen_as, SocketAddr::from((address, call.port)));
    }
    let to = pair.at(Endpoint::B);
    pair.expect(
        "a pod",
        Endpoint::ASecondary,
        to,
        (Endpoint::B, Endpoint::ASecondary),
    );
    Ok(pair.verdict()?)
}

fn source_ports_are_kept_or_random_as_configured() -> Outcome {
    for (word, drawn) in [("prng", true), ("hashrandom", true), ("none", false)] {
        let pair = NodePair::start(&[("AWS_VPC_K8S_CNI_RANDOMIZESNAT", word)])?;
        let mut moved = 0;
        for _ in 0..4 {
            for pod in Endpoint::ON_A {
                let call = pair.call(pod, pair.at(Endpoint::Internet))?;
                moved += u32::from(call.seen_as.port() != call.port);
            }
        }
        // The chance that eight random ports all stay the same is 10^-37.
        assert_eq!(
            moved > 0,
            drawn,
            "{word}: {moved} of 8 source ports were changed"
        );
    }
    Ok(())
}

/// Marks that others set, on packets and on connections, before all of our chains; and a counter for those that lost a
/// bit.
const FOREIGN: &str = "\
table ip foreign {
  counter lost {}
  counter seen {}
  chain before { type filter hook prerouting priority -160;
    meta mark set 0xcafe15ff
    ct state new ct mark set 0xbeef117f
  }
  chain after { type filter hook prerouting priority -80;
    meta mark & 0xffffff00 != 0xcafe1500 counter name lost
    ct mark & 0xffffff7f != 0xbeef117f counter name lost
    counter name seen
  }
}
";

fn foreign_mark_bits_survive() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let node_port = Service {
        at: SocketAddr::from((pair.address(Endpoint::A), 30080)),
        endpoint: pair.at(Endpoint::ASecondary),
        masquerade: false,
    };
    program(pair.a.netns(), Proxy::Nftables, &[node_port])?;
    lab::traffic::kube_proxy::feed(pair.a.netns(), &["nft", "-f", "-"], FOREIGN)?;
    for pod in Endpoint::ON_A {
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, Endpoint::A));
        for within in [Endpoint::B, Endpoint::BSecondary] {
            let to = pair.at(within);
            pair.expect("in the VPC", pod, to, (within, pod));
        }
    }
    pair.expect(
        "a NodePort",
        Endpoint::Internet,
        node_port.at,
        (Endpoint::ASecondary, Endpoint::Internet),
    );
    let counters =
        lab::traffic::kube_proxy::feed(pair.a.netns(), &["nft", "list", "counters"], "")?;
    let packets: Vec<u64> = counters
        .split("packets ")
        .skip(1)
        .filter_map(|rest| rest.split(' ').next()?.parse().ok())
        .collect();
    let [lost, seen] = packets[..] else {
        return Err(format!("two counters in {counters}").into());
    };
    assert!(
        lost == 0 && seen > 20,
        "{lost} of {seen} packets lost a foreign bit"
    );
    Ok(pair.verdict()?)
}

fn another_mark_does_the_same() -> Outcome {
    let mut pair = NodePair::start(&[("AWS_VPC_K8S_CNI_CONNMARK", "0x1000")])?;
    let node_port = Service {
        at: SocketAddr::from((pair.address(Endpoint::A), 30080)),
        endpoint: pair.at(Endpoint::ASecondary),
        masquerade: false,
    };
    program(pair.a.netns(), Proxy::Nftables, &[node_port])?;
    for pod in Endpoint::ON_A {
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, Endpoint::A));
        let to = pair.at(Endpoint::B);
        pair.expect("in the VPC", pod, to, (Endpoint::B, pod));
    }
    pair.expect(
        "a NodePort",
        Endpoint::Internet,
        node_port.at,
        (Endpoint::ASecondary, Endpoint::Internet),
    );
    let rules = lab::traffic::kube_proxy::feed(pair.a.netns(), &["ip", "rule"], "")?;
    assert!(
        rules.contains("1024:\tfrom all fwmark 0x1000/0x1000 lookup 1 "),
        "{rules}"
    );
    assert!(!rules.contains("fwmark 0x80/0x80"), "{rules}");
    Ok(pair.verdict()?)
}

fn links_are_named_and_sized_as_told() -> Outcome {
    let settings = [
        ("AWS_VPC_K8S_CNI_VETHPREFIX", "pod"),
        ("AWS_VPC_ENI_MTU", "1600"),
        ("POD_MTU", "1400"),
    ];
    let mut pair = NodePair::start(&settings)?;
    for pod in Endpoint::ON_A {
        let to = pair.at(Endpoint::Internet);
        pair.expect("off the VPC", pod, to, (Endpoint::Internet, Endpoint::A));
    }
    let links = lab::traffic::kube_proxy::feed(pair.a.netns(), &["ip", "-o", "link"], "")?;
    let named = |prefix: &str| -> Vec<_> {
        let name = format!(": {prefix}");
        links.lines().filter(|line| line.contains(&name)).collect()
    };
    for eni in ["eth0", "eth1"] {
        let links = named(eni);
        assert!(
            links.len() == 1 && links[0].contains("mtu 1600"),
            "{links:?}"
        );
    }
    assert_eq!(named("pod").len(), 4, "{links}");
    assert!(
        named("pod").iter().all(|line| line.contains("mtu 1400")),
        "{links}"
    );
    let inside = lab::traffic::kube_proxy::feed(
        pair.netns(Endpoint::ASecondary),
        &["ip", "-o", "link"],
        "",
    )?;
    assert!(
        inside.contains(": eth0@") && inside.contains("mtu 1400"),
        "{inside}"
    );
    let there = ping(
        pair.netns(Endpoint::ASecondary),
        None,
        pair.address(Endpoint::B),
        LIMIT,
    )?;
    assert!(there.is_some());
    Ok(pair.verdict()?)
}
