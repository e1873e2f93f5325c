//! Sends packets between two network namespaces that are wired like pods: what the node forwards for pods, it forwards for
//! them, through every filter of every program.
//!
//! The namespaces belong to this process only, so they end with it, and with them their links and routes. Needs the right
//! to make namespaces, which the daemon does not have.

use std::{
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd,
    time::Duration,
};

use datapath::{
    constants::{PODS_TABLE, PROTOCOL, RULE_PODS},
    netlink::{self, Family, Mac, Socket},
    netns::Netns,
    pod::{self, AddError, PodLink, PodRef},
    uplink::Uplink,
};
use nettypes::EniIndex;
use proto::error_chain::chain;

use super::{Check, failure, warning};
use crate::config::Config;

const NAME: &str = "probe";
/// Much longer than a packet needs on its way through a node, and a lost first packet is sent again within this time.
const LIMIT: Duration = Duration::from_secs(3);

/// Why no packet came through.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("no network namespace can be made")]
    Namespace(#[source] io::Error),
    #[error("no netlink socket could be opened")]
    Socket(#[from] netlink::Error),
    #[error("the rule {RULE_PODS} to pods is missing")]
    NoRule,
    #[error("a probe pod could not be wired")]
    Wiring(#[from] AddError),
    #[error("no socket in a probe pod")]
    Inside(#[source] io::Error),
    #[error("no answer within {} s", LIMIT.as_secs())]
    Lost(#[source] io::Error),
}

/// Two connections between probe pods: one is enough for a finding.
pub(super) fn check(config: &Config) -> Check {
    match probe(config) {
        Ok(took) => {
            let seen = format!(
                "a connection between two probe pods took {} µs",
                took.as_micros()
            );
            Check::new(NAME, seen, Vec::new())
        }
        Err(ProbeError::Lost(error)) => {
            let finding = failure(
                "the node drops packets that it forwards between pods",
                format!(
                    "two probe pods on the node: {}",
                    chain(&ProbeError::Lost(error))
                ),
                "pods of this node do not reach each other, and probably nothing else",
                "the check \"filters\" names the chain, if it can be read; otherwise look for rising counters in `nft list \
                 ruleset` and `iptables-legacy -vnL`, or for a policy of a security agent",
            );
            Check::new(NAME, "", vec![finding])
        }
        Err(error @ ProbeError::Wiring(_)) => {
            let finding = warning(
                "no probe pod can be wired",
                chain(&error),
                "whether the node forwards packets of pods was not tried",
                "see the daemon's log for the same error on ADD",
            );
            Check::new(NAME, "", vec![finding])
        }
        Err(error) => Check::skipped(NAME, chain(&error)),
    }
}

fn probe(config: &Config) -> Result<Duration, ProbeError> {
    let family = config.pool.family;
    let mut host = Socket::open()?;
    let forwards = |rule: &netlink::rule::Rule| {
        rule.protocol == PROTOCOL && rule.priority == RULE_PODS && rule.table == PODS_TABLE
    };
    if !host.rules(family)?.iter().any(forwards) {
        return Err(ProbeError::NoRule);
    }
    let namespaces = [Netns::create(), Netns::create()];
    let [a, b] = namespaces.map(|netns| netns.map_err(ProbeError::Namespace));
    let (a, b) = (a?, b?);
    let links = [0, 1].map(|n| link(config, n));
    let mut pods = Vec::new();
    let connected = wired(&mut host, [&a, &b], &links, &mut pods);
    for pod in &pods {
        // What fails here ends with the namespaces.
        drop(pod::unroute(&mut host, pod));
        drop(pod::unlink(&mut host, pod.host_index));
    }
    connected
}

fn wired(
    host: &mut Socket,
    namespaces: [&Netns; 2],
    links: &[PodLink; 2],
    pods: &mut Vec<PodRef>,
) -> Result<Duration, ProbeError> {
    for (netns, link) in namespaces.into_iter().zip(links) {
        let mut inside = Socket::open_in(netns)?;
        let wired = pod::add(host, &mut inside, netns.as_fd(), link, None)?;
        pods.push(PodRef {
            host_index: wired.host_index,
            address: link.address,
            egress: None,
            ports: Vec::new(),
        });
    }
    let [from, to] = namespaces;
    let at = SocketAddr::from((links[1].address, 0));
    let listener = to.run(|| TcpListener::bind(at)).and_then(|bound| bound);
    let listener = listener.map_err(ProbeError::Inside)?;
    let at = listener.local_addr().map_err(ProbeError::Inside)?;
    let call = move || -> io::Result<Duration> {
        let begun = crate::runtime::clock::now();
        let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(b"?")?;
        let (mut answering, _) = listener.accept()?;
        answering.set_read_timeout(Some(LIMIT))?;
        let mut byte = [0];
        answering.read_exact(&mut byte)?;
        answering.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        Ok(crate::runtime::clock::now().since(begun))
    };
    let called = from.run(call).and_then(|called| called);
    called.map_err(ProbeError::Lost)
}

/// The link of a probe pod: like a pod's on the primary ENI, by its name too, since filters tell pods by that.
fn link(config: &Config, n: u8) -> PodLink {
    let owner = format!("doctor {}/{n}", std::process::id());
    let [.., high, low] = std::process::id().to_be_bytes();
    PodLink {
        host_name: pod::own_name(&config.network.veth_prefix, &owner),
        owner,
        pod_name: "eth0".to_owned(),
        address: address(config.pool.family, n),
        mtu: config.network.pod_mtu,
        uplink: Uplink::Eni(EniIndex::PRIMARY),
        host_mac: Mac::local([0xd0, 0xc0, high, low, n, 0]),
        pod_mac: Mac::local([0xd0, 0xc0, high, low, n, 1]),
        secondary: false,
        asked: nettypes::Asked::default(),
        egress: None,
    }
}

/// Of the networks for benchmarks (RFC 2544 and RFC 5180), which nobody has in a VPC.
fn address(family: Family, n: u8) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(198, 19, 255, 250 + n).into(),
        Family::V6 => Ipv6Addr::new(0x2001, 2, 0, 0, 0, 0, 0xffff, 250 + u16::from(n)).into(),
    }
}
