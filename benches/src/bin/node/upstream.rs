//! The same two pods on a node configured like the AWS VPC CNI's: two policy rules for every pod, which the kernel
//! evaluates one by one for every packet, and its rules of iptables.

use std::{
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
};

use datapath::{
    constants::PODS_TABLE,
    netlink::{
        Family, Mac, Socket,
        rule::{self, Rule},
    },
    netns::Netns,
    pod::{self, PodLink},
    uplink::Uplink,
};

use lab::traffic::kube_proxy::feed;

use crate::packets::Pair;

/// The table of a secondary ENI.
const ENI_TABLE: u32 = 2;
/// The AWS VPC CNI's priorities of "to a pod" and "from a pod on a secondary ENI".
const TO_POD: u32 = 512;
const FROM_POD: u32 = 1536;

/// Its rules of iptables, as recorded from version 1.23.1. They are the same for every number of pods. The first two make the
/// kernel track connections, as it does on every such node.
const IPTABLES: &str = "\
*mangle
-A PREROUTING -i eth0 -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80
-A PREROUTING -i eni+ -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
-A PREROUTING -i vlan+ -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80
COMMIT
*nat
:AWS-SNAT-CHAIN-0 - [0:0]
-A POSTROUTING -j AWS-SNAT-CHAIN-0
-A AWS-SNAT-CHAIN-0 -d 10.0.0.0/8 -j RETURN
-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m addrtype ! --dst-type LOCAL -j SNAT --to-source 10.0.0.10 --random-fully
COMMIT
";

/// A node without a daemon, and two of its pods.
#[derive(Debug)]
pub struct Node {
    ends: [Netns; 2],
    /// Holds the rules.
    node: Netns,
}

impl Node {
    /// Lays out `pods` pods, two of which exist.
    ///
    /// # Errors
    /// If the kernel refuses a step.
    pub fn new(pods: u16) -> io::Result<Self> {
        let node = Self::lay_out(&rules_of(pods))?;
        feed(&node.node, &["iptables-restore"], IPTABLES)?;
        Ok(node)
    }

    /// Lays out two pods with one rule for both, no connection tracking and no filter: no layout is faster.
    ///
    /// # Errors
    /// If the kernel refuses a step.
    pub fn bare() -> io::Result<Self> {
        Self::lay_out(&[Rule::all(Family::V4, TO_POD, PODS_TABLE)])
    }

    fn lay_out(rules: &[Rule]) -> io::Result<Self> {
        let node = Netns::create()?;
        let ends = [Netns::create()?, Netns::create()?];
        node.run(|| lay_out(&ends, rules))?
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self { ends, node })
    }

    /// Its two pods.
    ///
    /// # Errors
    /// If a socket cannot be opened.
    pub fn pair(&self) -> io::Result<Pair> {
        Pair::open(&self.ends[0], &self.ends[1], address(1))
    }
}

fn address(n: u16) -> IpAddr {
    let [high, low] = n.to_be_bytes();
    Ipv4Addr::new(10, 200, high, low).into()
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The measured pods are added last: their rules come after the others'.
fn rules_of(pods: u16) -> Vec<Rule> {
    let each = (2..pods).chain([0, 1]).map(|n| {
        let to = Rule {
            to: Some(address(n).into()),
            ..Rule::all(Family::V4, TO_POD, PODS_TABLE)
        };
        [to, Rule::from(FROM_POD, address(n), ENI_TABLE)]
    });
    each.flatten().collect()
}

fn lay_out(ends: &[Netns; 2], rules: &[Rule]) -> Result<(), Failure> {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let mut host = Socket::open()?;
    for (n, netns) in (0..).zip(ends) {
        let mut inside = Socket::open_in(netns)?;
        pod::add(&mut host, &mut inside, netns.as_fd(), &link(n), None)?;
    }
    for rule in rules {
        host.apply(&rule::add(rule))?;
    }
    Ok(())
}

fn link(n: u16) -> PodLink {
    let [high, low] = n.to_be_bytes();
    PodLink {
        host_name: format!("eni{n}"),
        owner: format!("pod {n}"),
        pod_name: "eth0".to_owned(),
        address: address(n),
        mtu: 9001,
        uplink: Uplink::Eni(planner::EniIndex::PRIMARY),
        host_mac: Mac::local([0, 0, 0, 0, high, low]),
        pod_mac: Mac::local([4, 0, 0, 0, high, low]),
        secondary: false,
        asked: datapath::pod::Asked::default(),
        egress: None,
    }
}
