//! Four streams of packets between pods that stay: none of them may lose a packet, whatever is restarted meanwhile.

use std::{
    fs, io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd as _,
    time::Duration,
};

use cluster::{cluster::Cluster, images, machine::Machine};
use datapath::netns::Netns;
use lab::traffic::{ping::ping, stream::Stream};

use crate::{
    Outcome,
    setup::{PATIENCE, TIMEOUT},
};

const LIMIT: Duration = Duration::from_secs(20);
/// Two pods on each of the first two nodes.
const PODS: [(&str, usize); 4] = [
    ("steady-a", 0),
    ("steady-b", 0),
    ("steady-c", 1),
    ("steady-d", 1),
];

/// A namespace with one of its addresses.
type End = (Netns, Ipv4Addr);

/// Running streams.
pub struct Streams(Vec<Stream>);

/// Creates the pods and starts the streams: between two pods of a node, from the node to a pod, and both directions
/// between two nodes.
pub fn start(cluster: &Cluster) -> io::Result<Streams> {
    let image = images::PAUSE;
    for (name, node) in PODS {
        let node = &cluster.nodes[node].name;
        cluster.apply(&format!(
            "apiVersion: v1
kind: Pod
metadata: {{ name: {name}, labels: {{ app: steady }} }}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 1
  containers: [{{ name: pause, image: \"{image}\" }}]
"
        ))?;
    }
    cluster.kubectl(&[
        "wait",
        "pods",
        "-l",
        "app=steady",
        "--for=condition=Ready",
        TIMEOUT,
    ])?;
    let ends: Vec<End> = PODS
        .iter()
        .map(|(name, node)| end(cluster, name, &cluster.nodes[*node]))
        .collect::<io::Result<_>>()?;
    let node = &cluster.nodes[0].instance;
    let host = (
        Netns::from_fd(node.netns.as_fd().try_clone_to_owned()?).map_err(io::Error::other)?,
        node.address,
    );
    let [a, b, c, d] = [0, 1, 2, 3].map(|number| &ends[number]);
    let streams = [
        ("pod to pod", a, b),
        ("node to pod", &host, a),
        ("to another node", b, c),
        ("from another node", d, b),
    ]
    .map(|(name, from, to)| {
        // A new link of the fabric may lose its first packet.
        let answer = ping(&from.0, Some(from.1.into()), to.1, LIMIT)?;
        answer.ok_or_else(|| io::Error::other(format!("{name}: no way")))?;
        Stream::start(name, (&from.0, from.1), (&to.0, to.1))
    });
    streams.into_iter().collect::<io::Result<_>>().map(Streams)
}

impl Streams {
    /// Ends the streams, deletes the pods and checks that every packet arrived, or that each stream was interrupted at most this
    /// often.
    pub fn finish(self, cluster: &Cluster, interruptions: usize) -> Outcome {
        let delivered: io::Result<Vec<_>> = self.0.into_iter().map(Stream::finish).collect();
        // Not waited for: after an outage, kubelets ask the API server again within a minute.
        cluster.kubectl(&["delete", "pods", "-l", "app=steady", "--wait=false"])?;
        for stream in delivered? {
            let (name, sent, lost) = (&stream.name, stream.sent, &stream.lost);
            let short = u64::try_from(lost.len()).is_ok_and(|lost| lost <= sent / 50);
            stdout::errln!("          {name}: {sent} packets, {} lost", lost.len());
            assert!(sent > 1000, "{name}: only {sent} packets");
            assert!(
                stream.interruptions() <= interruptions && short,
                "{name}: lost {lost:?}"
            );
        }
        Ok(())
    }
}

/// The namespace of a pod: the one on its node in which its address is local.
fn end(cluster: &Cluster, pod: &str, node: &Machine) -> io::Result<End> {
    let form = ["get", "pod", pod, "-o", "jsonpath={.status.podIP}"];
    let address = cluster.await_kubectl(PATIENCE, &form, |text| !text.is_empty())?;
    let address: Ipv4Addr = address.parse().map_err(io::Error::other)?;
    for entry in fs::read_dir(node.path("run/netns"))? {
        let Ok(netns) = Netns::open(&entry?.path()) else {
            continue;
        };
        if netns.run(|| UdpSocket::bind((address, 0)))?.is_ok() {
            return Ok((netns, address));
        }
    }
    let text = format!("{} has no namespace with {address} of {pod}", node.name);
    Err(io::Error::other(text))
}
