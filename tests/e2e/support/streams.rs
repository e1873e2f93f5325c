//! Four streams of packets through a node while its daemon is replaced: none of them may lose a packet.

use std::{io, net::Ipv4Addr, time::Duration};

use datapath::netns::Netns;
use lab::{
    node::{Node, Pod},
    traffic::{
        ping::ping,
        stream::{Delivery, Stream},
    },
};

const LIMIT: Duration = Duration::from_secs(5);

/// Explains a loss that continues.
const STATE: &str = "ip rule; ip -4 route show table all; ip -4 neigh; ip -s link; nft list ruleset; \
                     cat /proc/thread-self/net/nf_conntrack";

/// Starts them: between two pods of a node, from the node to a pod, and both directions between nodes through the ENI of
/// the last pod.
pub fn start(node: &Node, pods: &[Pod], far: &Pod) -> io::Result<Vec<Stream>> {
    let [first, second, .., last] = pods else {
        return Err(io::Error::other("too few pods"));
    };
    fn end(pod: &Pod) -> (&Netns, Ipv4Addr) {
        (&pod.netns, pod.ipv4())
    }
    let host = (node.netns(), node.instance.address);
    let pairs = [
        ("pod to pod", end(first), end(second)),
        ("node to pod", host, end(first)),
        ("out by a secondary ENI", end(last), end(far)),
        ("in by a secondary ENI", end(far), end(last)),
    ];
    // A new link of the fabric may lose its first packet, so the paths of the streams are used before they start.
    for (name, from, to) in &pairs {
        let answer = ping(from.0, Some(from.1.into()), to.1, LIMIT)?;
        answer.ok_or_else(|| io::Error::other(format!("{name}: no way")))?;
    }
    let streams = pairs.map(|(name, from, to)| Stream::start(name, from, to));
    streams.into_iter().collect()
}

/// Ends the streams and checks that every packet arrived.
pub fn finish(streams: Vec<Stream>, node: &Node) -> io::Result<()> {
    let delivered: io::Result<Vec<_>> = streams.into_iter().map(Stream::finish).collect();
    let delivered = delivered?;
    if delivered.iter().any(|stream| !stream.lost.is_empty()) {
        stdout::errln!("{}\n{}", node.shell(STATE)?, node.log());
    }
    delivered.iter().for_each(judge);
    Ok(())
}

fn judge(stream: &Delivery) {
    let Delivery {
        name,
        sent,
        lost,
        took,
    } = stream;
    stdout::errln!("{name}: {sent} packets in {took:?}, {} lost", lost.len());
    assert!(*sent > 1000, "{name}: only {sent} packets");
    assert!(lost.is_empty(), "{name}: lost {lost:?}");
}
