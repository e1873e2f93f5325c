//! Everything that goes on while a node changes hands: a stream of numbered packets in each direction, connections and UDP
//! callers that were there before and are used all the time, and connections that are opened meanwhile.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
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
        udp_probe::{Caller, Responder},
    },
};
use vpc_sim::fabric::{INTERNET_ADDRESS, INTERNET_ADDRESS_V6};

const LIMIT: Duration = Duration::from_secs(20);
const PORT: u16 = 80;
/// Of Services of the first and the last pod, and of a container of the last one, on the node's own address.
const NODE_PORTS: [u16; 2] = [30080, 30081];
const HOST_PORT: u16 = 18080;
/// Until a UDP caller is answered.
const TRIES: u32 = 20;
/// Between two new connections.
const PAUSE: Duration = Duration::from_millis(20);

/// What kube-proxy and portmap add for these, beside the chains of others.
const PORTS: &str = "for c in KUBE-NODEPORTS CNI-HOSTPORT-DNAT; do \
      iptables-nft -t nat -N $c 2>/dev/null || iptables-nft -t nat -F $c; \
      iptables-nft -t nat -C PREROUTING -m addrtype --dst-type LOCAL -j $c 2>/dev/null || \
      iptables-nft -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j $c; done; \
    for p in tcp udp; do \
      iptables-nft -t nat -A KUBE-NODEPORTS -p $p --dport 30080 -j DNAT --to-destination FIRST:80; \
      iptables-nft -t nat -A KUBE-NODEPORTS -p $p --dport 30081 -j DNAT --to-destination LAST:80; \
      iptables-nft -t nat -A CNI-HOSTPORT-DNAT -p $p --dport 18080 -j DNAT --to-destination LAST:80; done";

/// A namespace that can connect and listen, with its address.
type End<'a> = (&'a Netns, IpAddr);

/// See the module. `pods` are on the node that changes hands, `far` is on another one.
pub struct Flows {
    streams: Vec<Stream>,
    stop: Arc<AtomicBool>,
    connections: JoinHandle<io::Result<(Vec<TcpConnection>, u64)>>,
    opened: usize,
    callers: JoinHandle<io::Result<u64>>,
    newcomers: JoinHandle<io::Result<u64>>,
    listeners: Vec<(Listener, Responder)>,
}

/// What became of them.
pub struct Ended {
    pub delivered: Vec<Delivery>,
    /// Answers on the connections.
    pub echoes: u64,
    pub connections: usize,
    /// Answers to UDP callers.
    pub answers: u64,
    /// Connections that were opened meanwhile.
    pub newcomers: u64,
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
            let listener = Listener::start(netns, at, name)?;
            listeners.push((listener, Responder::start(netns, at, name)?));
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
            (far_end, (host.1, NODE_PORTS[0])),
            (far_end, (host.1, NODE_PORTS[1])),
            (far_end, (host.1, HOST_PORT)),
        ];
        let callers = calls.map(|(from, to)| Caller::new(from.0, SocketAddr::from(to)));
        let callers: Vec<_> = callers.into_iter().collect::<io::Result<_>>()?;
        let ways = calls.map(|(from, to)| {
            let netns = from.0.as_fd().try_clone_to_owned()?;
            Ok((
                Netns::from_fd(netns).map_err(io::Error::other)?,
                SocketAddr::from(to),
            ))
        });
        let ways: Vec<_> = ways.into_iter().collect::<io::Result<_>>()?;
        let mut connections = Vec::new();
        for (from, to) in calls {
            let opened = TcpConnection::start(from.0, None, SocketAddr::from(to), LIMIT);
            connections
                .push(opened.map_err(|e| io::Error::other(format!("{from:?} to {to:?}: {e}")))?);
        }
        let stop = Arc::new(AtomicBool::new(false));
        let opened = connections.len();
        let [told, told_callers, told_newcomers] = [(); 3].map(|()| stop.clone());
        let streams = pairs.map(|(name, from, to)| Stream::start(name, from, to));
        Ok(Self {
            streams: streams.into_iter().collect::<io::Result<_>>()?,
            stop,
            connections: thread::spawn(move || keep_talking(connections, &told)),
            opened,
            callers: thread::spawn(move || keep_calling(&callers, &told_callers)),
            newcomers: thread::spawn(move || keep_opening(&ways, &told_newcomers)),
            listeners,
        })
    }

    /// Ends everything. Fails if a connection was lost.
    pub fn finish(self) -> io::Result<Ended> {
        self.stop.store(true, Ordering::Relaxed);
        let talked = self.connections.join().expect("no talker panics");
        let answers = self.callers.join().expect("no caller panics")?;
        let newcomers = self.newcomers.join().expect("no newcomer panics")?;
        let delivered: io::Result<Vec<_>> = self.streams.into_iter().map(Stream::finish).collect();
        let (kept, echoes) = talked?;
        assert_eq!(kept.len(), self.opened);
        drop(self.listeners);
        Ok(Ended {
            delivered: delivered?,
            echoes,
            connections: kept.len(),
            answers,
            newcomers,
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
        let Self {
            connections,
            echoes,
            answers,
            newcomers,
            ..
        } = self;
        stdout::errln!(
            "{what}: {connections} connections, {echoes} echoes, {answers} answers by UDP, {newcomers} new connections"
        );
        assert!(*answers > 0 && *newcomers > 0);
    }
}

/// The same server answers each caller, and sees the same address all the time.
fn keep_calling(callers: &[Caller], stop: &AtomicBool) -> io::Result<u64> {
    let first = callers.iter().map(|caller| caller.call(TRIES));
    let first: Vec<_> = first.collect::<io::Result<_>>()?;
    let mut answers = 0;
    while !stop.load(Ordering::Relaxed) {
        for (caller, first) in callers.iter().zip(&first) {
            let now = caller.call(TRIES)?;
            if now != *first {
                return Err(io::Error::other(format!("{first:?} became {now:?}")));
            }
            answers += 1;
        }
        thread::sleep(PAUSE);
    }
    Ok(answers)
}

fn keep_opening(ways: &[(Netns, SocketAddr)], stop: &AtomicBool) -> io::Result<u64> {
    let mut opened = 0;
    for (from, to) in ways.iter().cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let connection = TcpConnection::start(from, None, *to, LIMIT);
        let answered = connection.and_then(|mut connection| connection.echoes());
        answered.map_err(|e| io::Error::other(format!("new connection to {to}: {e}")))?;
        opened += 1;
        thread::sleep(PAUSE);
    }
    Ok(opened)
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
