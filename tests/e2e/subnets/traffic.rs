//! Packets of pods in a secondary block of the VPC: their own address inside the VPC, the node's outside.

use std::net::SocketAddr;

use lab::traffic::{
    node_pair::{LIMIT, PORT},
    tcp_probe::{Listener, TcpConnection},
};
use serde_json::json;
use vpc_sim::fabric::INTERNET_ADDRESS;

use super::vpc::Vpc;
use crate::suite::{Outcome, trials};

trials!(pods_in_a_secondary_block_keep_their_address_in_the_vpc_and_leave_it_with_the_nodes);

fn pods_in_a_secondary_block_keep_their_address_in_the_vpc_and_leave_it_with_the_nodes() -> Outcome
{
    let vpc = Vpc::start(&[("100.64.1.0/24", 'a'), ("100.64.2.0/24", 'a')])?;
    let (mut node, server) = vpc.custom_node("t3.small", &[])?;
    server.put_config("default", &json!({ "subnet": vpc.subnets[1].to_string() }));
    node.start_daemon(&vpc.lab.sim.ec2_endpoint())?;
    let pod = node.add_pod("pod")?;
    let other = vpc
        .lab
        .node("t3.small", &[("ENABLE_SUBNET_DISCOVERY", "false")])?;
    let far = other.add_pod("far")?;
    let at = |address| SocketAddr::from((address, PORT));
    let internet = Listener::start(
        vpc.lab.sim.internet(),
        at(INTERNET_ADDRESS.into()),
        "internet",
    )?;
    let remote = Listener::start(other.netns(), at(other.instance.address.into()), "node")?;
    let distant = Listener::start(&far.netns, at(far.address()), "pod")?;
    let local = Listener::start(&pod.netns, at(pod.address()), "local")?;
    for (to, by, seen_as) in [
        (
            INTERNET_ADDRESS.into(),
            "internet",
            node.instance.address.into(),
        ),
        (other.instance.address.into(), "node", pod.address()),
        (far.address(), "pod", pod.address()),
    ] {
        let call = TcpConnection::start(&pod.netns, None, at(to), LIMIT)?;
        assert_eq!(
            (call.with.as_str(), call.seen_as.ip()),
            (by, seen_as),
            "to {to}"
        );
    }
    // The other way: from the other node's pod and from the node itself.
    for from in [&far.netns, other.netns(), node.netns()] {
        let call = TcpConnection::start(from, None, at(pod.address()), LIMIT)?;
        assert_eq!(call.with, "local");
    }
    drop((internet, remote, distant, local));
    Ok(())
}
