//! Pods that reach IPv4 destinations by the AWS VPC CNI's `egress-cni` keep their addresses for that.

use std::{collections::BTreeSet, io, time::Duration};

use datapath::constants::PODS_TABLE;
use lab::{
    aws_node::Kind,
    node::{Node, Pod},
    traffic::ping::ping,
};
use vpc_sim::fabric::INTERNET_ADDRESS;

use super::forth::Site;
use crate::suite::{Outcome, trials};

trials!(no_pod_gets_the_egress_address_of_a_pod_of_aws_node);

const LIMIT: Duration = Duration::from_secs(20);

/// What `egress-cni` makes for the pod with the `n`th address of its network.
fn wire_egress(node: &Node, pod: &Pod, n: usize) -> io::Result<()> {
    let (address, own) = (format!("169.254.172.{n}"), node.instance.address);
    node.shell(&format!(
        "ip link add veth{n} type veth peer name v4if0 netns {}; ip link set veth{n} up; \
         ip addr add 169.254.172.1/32 scope link dev veth{n}; \
         ip route add {address} dev veth{n} scope link; sysctl -qw net.ipv4.ip_forward=1; \
         iptables-nft -t nat -A POSTROUTING -s {address} -j SNAT --to-source {own}",
        pod.path.display()
    ))?;
    let inside = format!(
        "ip addr add {address}/22 dev v4if0; ip link set v4if0 up; ip route add default via 169.254.172.1"
    );
    let mut shell = std::process::Command::new("sh");
    let status = pod
        .netns
        .run(move || shell.args(["-ec", &inside]).status())??;
    assert!(status.success());
    Ok(())
}

fn no_pod_gets_the_egress_address_of_a_pod_of_aws_node() -> Outcome {
    let mut site = Site::build(Kind::Ipv6, [2, 0])?;
    let out = |pod: &Pod| ping(&pod.netns, None, INTERNET_ADDRESS, LIMIT);
    // The first address that Hawser would give, and a later one.
    for (pod, n) in site.was.pods.iter().zip([2, 4]) {
        wire_egress(&site.node, pod, n)?;
        assert!(out(pod)?.is_some(), "before");
    }
    site.take_over()?;
    let routes = |site: &Site| -> io::Result<BTreeSet<String>> {
        let routes = format!("ip route show table {PODS_TABLE}");
        let routes = site.node.shell(&routes)?;
        let addresses = routes.lines().filter_map(|line| line.split(' ').next());
        Ok(addresses.map(ToOwned::to_owned).collect())
    };
    for restart in [false, true] {
        if restart {
            site.node.kill_daemon()?;
            site.node.start_daemon(&site.lab.sim.ec2_endpoint())?;
        }
        let ours = [0, 1, 2].map(|n| site.node.add_pod(&format!("new{n}-{restart}")));
        let ours: Vec<Pod> = ours.into_iter().collect::<io::Result<_>>()?;
        let given = routes(&site)?;
        assert_eq!(given.len(), 3, "{given:?}");
        let theirs = ["169.254.172.2", "169.254.172.4"].map(str::to_owned);
        assert!(given.is_disjoint(&theirs.into()), "{given:?}");
        for pod in ours.iter().chain(&site.was.pods) {
            assert!(out(pod)?.is_some(), "{}: {}", pod.id, site.node.log());
        }
        for pod in ours {
            site.node.delete_pod(pod)?;
        }
    }
    site.delete_all()
}
