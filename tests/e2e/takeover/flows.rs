//! Everything that goes on while a node changes hands: a stream of numbered packets in each direction, and connections that
//! were opened before and are used all the time.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use datapath::netns::Netns;
use lab::{
    Lab,
    node::{Node, Pod},
    traffic::{
        ping::ping,
        stream::{Delivery, Stream},
        tcp_probe::{Listener, TcpConnection},
    },
};
use vpc_sim::fabric::{INTERNET_ADDRESS, INTERNET_ADDRESS_V6};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
/// Of a Service and of a container, on the node's own address.
const NODE_PORT: u16 = 30080;
const HOST_PORT: u16 = 18080;

/// What kube-proxy and portmap add for these, beside the chains of others.
const PORTS: &str = "for c in KUBE-NODEPORTS CNI-HOSTPORT-DNAT; do \
      iptables-nft -t nat -N $c 2>/dev/null || iptables-nft -t nat -F $c; \
      iptables-nft -t nat -C PREROUTING -m addrtype --dst-type LOCAL -j $c 2>/dev/null || \
      iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j $c; done; \
    iptables-nft -t nat -A KUBE-NODEPORTS -p tcp --dport 30080 -j DNAT --to-destination FIRST:80; \
    iptables-nft -t nat -A CNI-HOSTPORT-DNAT -p tcp --dport 18080 -j DNAT --to-destination LAST:80";

/// A namespace that can connect and listen, with its address.
type End<'a> = (&'a Netns, IpAddr);

/// See the module. `pods` are on the node that changes hands, `far` is on another one.
pub struct Flows {
    streams: Vec<Stream>,
    stop: Arc<AtomicBool>,
    connections: JoinHandle<io::Result<(Vec<TcpConnection>, u64)>>,
    opened: usize,
    listeners: Vec<Listener>,
}

/// What became of them.
pub struct Ended {
    pub delivered: Vec<Delivery>,
    /// Answers on the connections.
    pub echoes: u64,
    pub connections: usize,
}

impl Flows {
    /// Opens everything. The first pod has a `NodePort`, and the last one a host port.
    pub fn start(lab: &Lab, node: &Node, pods: &[Pod], far: &Pod) -> io::Result<Self> {
        let (Some(first), Some(last)) = (pods.first(), pods.last()) else {
            return Err(io::Error::other("no pods"));
        };
        let six = first.address().is_ipv6();
        let own = match node.instance.ipv6 {
            Some(own) if six => IpAddr::from(own),
            _ => IpAddr::from(node.instance.address),
        };
        let internet = match six {
            true => IpAddr::from(INTERNET_ADDRESS_V6),
            false => IpAddr::from(INTERNET_ADDRESS),
        };
        let host: End<'_> = (node.netns(), own);
        let outside: End<'_> = (lab.sim.internet(), internet);
        let (first_end, last_end, far_end) = (end(first), end(last), end(far));
        let mut listeners = Vec::new();
        for (name, (netns, address)) in [
            ("first", first_end),
            ("last", last_end),
            ("far", far_end),
            ("outside", outside),
        ] {
            let at = SocketAddr::from((address, PORT));
            listeners.push(Listener::start(netns, at, name)?);
        }
        let tool = if six { "ip6tables-nft" } else { "iptables-nft" };
        let at = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        let ports = PORTS.replace("iptables-nft", tool);
        let ports = ports.replace("FIRST", &at(first_end.1));
        node.shell(&ports.replace("LAST", &at(last_end.1)))?;
        let pairs = [
            ("pod to pod", first_end, last_end),
            ("node to pod", host, last_end),
            ("out by the primary ENI", first_end, far_end),
            ("in by the primary ENI", far_end, first_end),
            ("out by the last pod's ENI", last_end, far_end),
            ("in by the last pod's ENI", far_end, last_end),
        ];
        for (name, from, to) in &pairs {
            let answer = ping(from.0, Some(from.1), to.1, LIMIT)?;
            answer.ok_or_else(|| io::Error::other(format!("{name}: no way\n{}", node.log())))?;
        }
        let calls = [
            (first_end, (last_end.1, PORT)),
            (last_end, (first_end.1, PORT)),
            (host, (last_end.1, PORT)),
            (first_end, (far_end.1, PORT)),
            (last_end, (far_end.1, PORT)),
            (far_end, (first_end.1, PORT)),
            (far_end, (last_end.1, PORT)),
            (first_end, (outside.1, PORT)),
            (last_end, (outside.1, PORT)),
            (far_end, (host.1, NODE_PORT)),
            (far_end, (host.1, HOST_PORT)),
        ];
        let mut connections = Vec::new();
        for (from, to) in calls {
            let opened = TcpConnection::start(from.0, None, SocketAddr::from(to), LIMIT);
            connections
                .push(opened.map_err(|e| io::Error::other(format!("{from:?} to {to:?}: {e}")))?);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (opened, told) = (connections.len(), stop.clone());
        let streams = pairs.map(|(name, from, to)| Stream::start(name, from, to));
        Ok(Self {
            streams: streams.into_iter().collect::<io::Result<_>>()?,
            stop,
            connections: thread::spawn(move || keep_talking(connections, &told)),
            opened,
            listeners,
        })
    }

    /// Ends everything. Fails if a connection was lost.
    pub fn finish(self) -> io::Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        let talked = self.connections.join().expect("no talker panics");
        let delivered: io::Result<Vec<_>> = self.streams.into_iter().map(Stream::finish).collect();
        let (kept, echoes) = talked?;
        assert_eq!(kept.len(), self.opened);
        drop(self.listeners);
        Ok(Ended {
            delivered: delivered?,
            echoes,
            connections: kept.len(),
        })
    }
}

impl Ended {
    /// Writes the figures. The node has changed its owner this often: each time, a stream loses at most the packets that are in
    /// flight when its pod's link leaves ARP. How many these are depends on the machine, so interruptions are counted.
    pub fn judge(&self, what: &str, changes: usize) {
        for delivery in &self.delivered {
            let Delivery {
                name,
                sent,
                lost,
                took,
            } = delivery;
            stdout::errln!("{what}: {name}: {sent} packets in {took:?}, lost {lost:?}");
            assert!(delivery.interruptions() <= changes, "{name}: {lost:?}");
            let share = *sent / 50;
            assert!(
                u64::try_from(lost.len()).is_ok_and(|lost| lost <= share),
                "{name}: {lost:?}"
            );
        }
        let (connections, echoes) = (self.connections, self.echoes);
        stdout::errln!("{what}: {connections} connections, {echoes} echoes");
    }
}

fn end(pod: &Pod) -> End<'_> {
    (&pod.netns, pod.address())
}

fn keep_talking(
    mut connections: Vec<TcpConnection>,
    stop: &AtomicBool,
) -> io::Result<(Vec<TcpConnection>, u64)> {
    let mut echoes = 0;
    loop {
        for connection in &mut connections {
            let seen_as = connection.seen_as;
            let answered = connection.echoes();
            answered.map_err(|e| {
                io::Error::other(format!("with {} as {seen_as}: {e}", connection.with))
            })?;
            echoes += 1;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok((connections, echoes));
        }
    }
}
