//! Twelve checks of the paths of packets, with the real daemon and a capture on every ENI, and checks of the capture.

use std::{net::SocketAddr, time::Duration};

use datapath::{
    constants::RULE_ENI,
    netlink::{
        self, Family, Socket,
        addr::{self, Address},
        rule,
    },
};
use lab::traffic::{
    capture,
    kube_proxy::{Proxy, Service, program},
    node_pair::{Endpoint, NodePair},
    ping::ping,
};

use crate::suite::{Outcome, trials};

trials!(
    the_twelve_checks,
    a_packet_that_leaves_by_the_wrong_eni_is_seen,
);

fn the_twelve_checks() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let cluster = |n: u8| SocketAddr::from(([172, 20, 0, n], 80));
    let service = |at, endpoint| Service {
        at,
        endpoint: pair.at(endpoint),
        masquerade: false,
    };
    let node_port = SocketAddr::from((pair.address(Endpoint::A), 30080));
    let services = [
        service(node_port, Endpoint::ASecondary),
        service(cluster(10), Endpoint::Internet),
        service(cluster(11), Endpoint::B),
    ];
    let (p1, p2, inet) = (Endpoint::APrimary, Endpoint::ASecondary, Endpoint::Internet);
    let at = |who| pair.at(who);
    let checks = [
        ("1: to a pod of the node", p1, at(p2), (p2, p1)),
        (
            "2: to another node, secondary",
            p2,
            at(Endpoint::B),
            (Endpoint::B, p2),
        ),
        (
            "3: to another node, primary",
            p1,
            at(Endpoint::B),
            (Endpoint::B, p1),
        ),
        (
            "4: from another node",
            Endpoint::B,
            at(p2),
            (p2, Endpoint::B),
        ),
        (
            "5: to the internet, secondary",
            p2,
            at(inet),
            (inet, Endpoint::A),
        ),
        (
            "6: to the internet, primary",
            p1,
            at(inet),
            (inet, Endpoint::A),
        ),
        ("7: by a NodePort", inet, node_port, (p2, inet)),
        ("8: straight to the pod", inet, at(p2), (p2, inet)),
        (
            "9: to a service off the VPC",
            p2,
            cluster(10),
            (inet, Endpoint::A),
        ),
        (
            "10: to a service in the VPC",
            p2,
            cluster(11),
            (Endpoint::B, p2),
        ),
        ("11: from the node", Endpoint::A, at(p2), (p2, Endpoint::A)),
    ];
    for proxy in Proxy::ALL {
        program(pair.a.netns(), proxy, &services)?;
        for (what, from, to, answer) in checks {
            pair.expect(&format!("{proxy:?}, {what}"), from, to, answer);
        }
    }
    let borrowed = borrow_address(&pair)?;
    assert!(borrowed.is_none(), "12: a pod used another's address");
    Ok(pair.verdict()?)
}

/// Whether the pod on the secondary ENI gets an answer when it sends from the other's address.
fn borrow_address(pair: &NodePair) -> Result<Option<Duration>, Box<dyn std::error::Error>> {
    let (thief, victim) = (
        pair.netns(Endpoint::ASecondary),
        pair.address(Endpoint::APrimary),
    );
    thief.run(|| -> Result<(), netlink::Error> {
        let mut socket = Socket::open()?;
        let index = socket.link_by_name("eth0")?.map_or(0, |link| link.index);
        socket.apply(&addr::add(&Address::host(index, victim)))
    })??;
    let patience = Duration::from_millis(500);
    Ok(ping(
        thief,
        Some(victim.into()),
        pair.address(Endpoint::B),
        patience,
    )?)
}

fn a_packet_that_leaves_by_the_wrong_eni_is_seen() -> Outcome {
    let mut pair = NodePair::start(&[])?;
    let to = pair.at(Endpoint::B);
    pair.expect(
        "with its rule",
        Endpoint::ASecondary,
        to,
        (Endpoint::B, Endpoint::ASecondary),
    );
    pair.verdict()?;
    pair.a.kill_daemon()?;
    pair.a.netns().run(|| -> Result<(), netlink::Error> {
        let mut socket = Socket::open()?;
        for wrong in socket.rules(Family::V4)? {
            if wrong.priority == RULE_ENI {
                socket.apply(&rule::del(&wrong))?;
            }
        }
        Ok(())
    })??;
    let patience = Duration::from_millis(300);
    let (pod, node) = (pair.netns(Endpoint::ASecondary), pair.address(Endpoint::B));
    assert!(
        ping(pod, None, node, patience)?.is_none(),
        "the fabric let it through"
    );
    let strays = capture::strays(&pair.lab, &pair.packets()?);
    let (source, eni) = (pair.address(Endpoint::ASecondary), &pair.a.instance.eni);
    let seen = strays
        .iter()
        .any(|stray| stray.source == source && stray.eni == *eni);
    assert!(seen, "{strays:?}");
    Ok(())
}
