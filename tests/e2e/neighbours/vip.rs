//! VIP managers and DHCP clients that configure addresses of the pool on the node while it runs.

use std::{io, net::IpAddr, time::Duration};

use lab::{
    node::{Node, inspect::inspect},
    traffic::ping::ping,
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    suite::{Outcome, trials},
    support::repair::DamagedNode,
};

trials!(
    a_vip_that_is_free_in_the_pool_goes_to_no_pod,
    a_vip_that_a_pod_has_is_told_at_once_and_goes_to_no_other_pod,
    a_stray_on_a_managed_eni_is_taken_off_under_the_pod,
);

/// More than the daemon's round.
const LIMIT: Duration = Duration::from_secs(90);
/// The primary ENI's three addresses and no more, which rest for a short time.
const SETTINGS: [(&str, &str); 3] = [
    ("WARM_IP_TARGET", "3"),
    ("MAX_ENI", "1"),
    ("IP_COOLDOWN_PERIOD", "1"),
];

/// Each address of the pool with its state, and whether the node uses it.
fn addresses(node: &Node) -> Vec<(IpAddr, String, bool)> {
    let snapshot = inspect(&node.socket()).unwrap_or_default();
    let all = snapshot.enis.into_iter().flat_map(|eni| eni.addresses);
    let read = |address: proto::v1::Address| {
        let four = <[u8; 4]>::try_from(address.address.as_slice()).ok()?;
        Some((IpAddr::from(four), address.state, address.host_uses))
    };
    all.filter_map(read).collect()
}

fn is(node: &Node, address: IpAddr, state: &str, host_uses: bool) -> bool {
    addresses(node).contains(&(address, state.to_owned(), host_uses))
}

fn free(node: &Node) -> Vec<IpAddr> {
    let all = addresses(node).into_iter();
    all.filter(|(_, state, _)| state == "free")
        .map(|(address, ..)| address)
        .collect()
}

fn node() -> io::Result<(lab::Lab, Node)> {
    let lab = lab::Lab::start(SimConfig::default())?;
    let node = lab.node("t3.small", &SETTINGS)?;
    match eventually(LIMIT, || free(&node).len() == 3) {
        true => Ok((lab, node)),
        false => Err(io::Error::other(node.log())),
    }
}

/// keepalived takes over a VIP: on the interface, then on the loopback as kube-vip and IPVS directors have it.
fn a_vip_that_is_free_in_the_pool_goes_to_no_pod() -> Outcome {
    let (_lab, node) = node()?;
    let vip = free(&node)[1];
    for device in ["eth0", "lo"] {
        node.shell(&format!("ip addr add {vip}/32 dev {device}"))?;
        assert!(
            eventually(LIMIT, || is(&node, vip, "quarantined", true)),
            "{device}"
        );
        let pods = [node.add_pod("a")?, node.add_pod("b")?];
        assert!(pods.iter().all(|pod| pod.address() != vip));
        for pod in pods {
            node.delete_pod(pod)?;
        }
        node.shell(&format!("ip addr del {vip}/32 dev {device}"))?;
        assert!(eventually(LIMIT, || free(&node).len() == 3), "{device}");
    }
    Ok(())
}

fn a_vip_that_a_pod_has_is_told_at_once_and_goes_to_no_other_pod() -> Outcome {
    let (lab, node) = node()?;
    let pod = node.add_pod("a")?;
    let vip = pod.address();
    node.shell(&format!("ip addr add {vip}/32 dev eth0"))?;
    assert!(eventually(LIMIT, || is(&node, vip, "assigned", true)));
    let told = format!("\"address\":\"{vip}\"");
    let told =
        |line: &&str| line.contains(&told) && line.contains("the node itself uses an address");
    let log = node.log();
    let line = log.lines().find(told);
    assert!(
        line.is_some_and(|line| line.contains("\"container\":\"a\"")),
        "{log}"
    );
    let shown = node.ask(&lab.sim.ec2_endpoint(), &["inspect"])?;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("the node itself uses it too"), "{shown}");
    // The VIP is not taken from its program.
    assert!(
        node.shell("ip addr show dev eth0")?
            .contains(&vip.to_string())
    );

    node.delete_pod(pod)?;
    assert!(eventually(LIMIT, || is(&node, vip, "quarantined", true)));
    let others = [node.add_pod("b")?, node.add_pod("c")?];
    assert!(others.iter().all(|pod| pod.address() != vip));
    node.shell(&format!("ip addr del {vip}/32 dev eth0"))?;
    assert!(eventually(LIMIT, || is(&node, vip, "free", false)));
    assert_eq!(node.add_pod("d")?.address(), vip);
    Ok(())
}

/// ec2-net-utils and DHCP clients put an ENI's addresses on its device.
fn a_stray_on_a_managed_eni_is_taken_off_under_the_pod() -> Outcome {
    let damaged = DamagedNode::ipv4()?;
    let right = damaged.describe()?;
    let pods = damaged.talking.map(|n| &damaged.pods[n]);
    for pod in pods {
        let address = pod.address();
        let took = damaged.damage(&format!("ip addr add {address}/20 dev eth1"), &right)?;
        stdout::errln!("a stray: gone after {took:?}");
        let answer = ping(&pod.netns, None, damaged.target.address(), LIMIT)?;
        assert!(answer.is_some(), "{}", damaged.node.log());
        let seen = || is(&damaged.node, address, "assigned", false);
        assert!(eventually(LIMIT, seen), "{}", damaged.node.log());
    }
    Ok(())
}
