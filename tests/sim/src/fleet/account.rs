//! EC2 for a whole account: the buckets of `vpc-sim`, shared by all nodes, a ledger per node, and the log of calls.
//!
//! Faster than vpc-sim's world, whose Describe reads every interface of the region: here a node's call reads only its
//! own interfaces, so that a fleet of thousands takes seconds. Calls fail only for lack of tokens; changes are visible
//! immediately.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex},
    time::Duration,
};

use ipamd::ec2::api::{Attachment, Call, CallError, CallFuture, Ec2, Interface, Reply, Subnet};
use ipnet::Ipv4Net;
use planner::{Amount, AttachmentId, EniId, Mac, SubnetId};
use tokio::time::Instant;
use vpc_sim::{Action, random::Rng, world::throttle::Buckets};

/// Nodes per subnet: a /16 is enough for a thousand nodes with two ENIs.
const PER_SUBNET: usize = 1000;

/// One call as received by EC2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Seen {
    /// Since the creation of the account.
    pub at: Duration,
    pub action: &'static str,
    pub throttled: bool,
}

#[derive(Debug)]
struct Ledger {
    buckets: Buckets,
    /// By node.
    interfaces: Vec<Vec<Interface>>,
    /// Assigned addresses, by subnet.
    taken: Vec<u32>,
    made: u32,
    log: Vec<Seen>,
    rng: Rng,
}

/// The account.
#[derive(Debug)]
pub struct Account {
    ledger: Mutex<Ledger>,
    begun: Instant,
}

/// One node's access to the account.
#[derive(Debug)]
pub struct Seat {
    account: Arc<Account>,
    node: usize,
}

impl Account {
    /// An account with one instance per node, each with its primary interface, and with full buckets.
    #[must_use]
    pub fn new(nodes: usize, seed: u64) -> Self {
        let mut ledger = Ledger {
            buckets: Buckets::default(),
            interfaces: vec![Vec::new(); nodes],
            taken: vec![0; nodes.div_ceil(PER_SUBNET)],
            made: 0,
            log: Vec::new(),
            rng: Rng::new(seed, 0),
        };
        for node in 0..nodes {
            let mut primary = ledger.interface(node, 0);
            primary.attachment = Some(attachment(&primary.eni, node, 0));
            ledger.interfaces[node].push(primary);
        }
        Self {
            ledger: Mutex::new(ledger),
            begun: Instant::now(),
        }
    }

    #[must_use]
    pub fn seat(self: &Arc<Self>, node: usize) -> Seat {
        Seat {
            account: self.clone(),
            node,
        }
    }

    /// A node's primary interface.
    #[must_use]
    pub fn primary(&self, node: usize) -> Interface {
        self.ledger().interfaces[node][0].clone()
    }

    #[must_use]
    pub fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Every call from `start` on, relative to it.
    #[must_use]
    pub fn since(&self, start: Duration) -> Vec<Seen> {
        let ledger = self.ledger();
        let calls = ledger.log.iter().filter(|seen| seen.at >= start);
        calls
            .map(|seen| Seen {
                at: seen.at - start,
                ..*seen
            })
            .collect()
    }

    /// When the last call was received.
    #[must_use]
    pub fn last_call(&self) -> Duration {
        self.ledger()
            .log
            .last()
            .map_or(Duration::ZERO, |seen| seen.at)
    }

    /// An interface that a previous process of the node created and did not attach.
    pub fn leave_stray(&self, node: usize) {
        let mut ledger = self.ledger();
        let mut stray = ledger.interface(node, 5);
        let tag = "node.k8s.amazonaws.com/instance_id".to_owned();
        stray.tags.insert(tag, instance(node));
        ledger.interfaces[node].push(stray);
    }

    /// Interfaces of a node, attached or not.
    #[must_use]
    pub fn interfaces(&self, node: usize) -> usize {
        self.ledger().interfaces[node].len()
    }

    fn ledger(&self) -> std::sync::MutexGuard<'_, Ledger> {
        self.ledger.lock().expect("no holder panics")
    }
}

impl Ec2 for Seat {
    fn call(&self, call: Call) -> CallFuture<'_> {
        Box::pin(async move {
            let half = self.account.ledger().latency(&call) / 2;
            tokio::time::sleep(half).await;
            let now = self.account.now();
            let result = self.account.ledger().take(self.node, call, now);
            tokio::time::sleep(half).await;
            result
        })
    }
}

impl Ledger {
    /// The total duration of a call (ec2-and-faults §3.5).
    fn latency(&mut self, call: &Call) -> Duration {
        let (least, most) = match call.action() {
            "CreateNetworkInterface" => (400, 1500),
            "AttachNetworkInterface" => (300, 1200),
            "AssignPrivateIpAddresses" => (200, 800),
            action if action.starts_with("Describe") => (60, 250),
            _ => (300, 300),
        };
        self.rng.millis(least, most)
    }

    fn take(&mut self, node: usize, call: Call, now: Duration) -> Result<Reply, CallError> {
        let action = call.action();
        let known = Action::parse(action).expect("vpc-sim knows every action of the daemon");
        let throttled = !self.buckets.admit(known, true, now);
        self.log.push(Seen {
            at: now,
            action,
            throttled,
        });
        if throttled {
            return Err(CallError {
                action,
                code: Some("RequestLimitExceeded".to_owned()),
                message: "Request limit exceeded.".to_owned(),
                refused: true,
            });
        }
        Ok(self.answer(node, call))
    }

    fn answer(&mut self, node: usize, call: Call) -> Reply {
        match call {
            Call::DescribeNetworkInterfaces { filters } => {
                let mut found = self.interfaces[node].clone();
                found.retain(|eni| {
                    filters
                        .iter()
                        .all(|(name, value)| matches(eni, name, value))
                });
                Reply::Interfaces(found)
            }
            Call::CreateNetworkInterface { tags, amount, .. } => {
                let mut eni = self.interface(node, count(amount));
                eni.tags = tags;
                self.interfaces[node].push(eni.clone());
                Reply::Interface(Box::new(eni))
            }
            Call::AttachNetworkInterface { eni, device, .. } => {
                let found = self.find(node, &eni);
                let attachment = attachment(&eni, node, device);
                found.attachment = Some(attachment.clone());
                Reply::Attached(attachment.id)
            }
            Call::AssignPrivateIpAddresses { eni, amount } => {
                let addresses: Vec<_> = (0..count(amount)).map(|_| self.address(node)).collect();
                self.find(node, &eni).secondary.extend(&addresses);
                Reply::Assigned {
                    addresses: addresses.into_iter().map(IpAddr::V4).collect(),
                    prefixes: Vec::new(),
                }
            }
            Call::DeleteOnTermination { .. } | Call::SetGroups { .. } => Reply::Done,
            Call::DetachNetworkInterface { attachment } => {
                let is_it = |known: &Attachment| known.id == attachment;
                for eni in &mut self.interfaces[node] {
                    eni.attachment = eni
                        .attachment
                        .take()
                        .filter(|attachment| !is_it(attachment));
                }
                Reply::Done
            }
            Call::DeleteNetworkInterface { eni } => {
                self.interfaces[node].retain(|known| known.eni != eni);
                Reply::Done
            }
            Call::UnassignPrivateIpAddresses { eni, addresses, .. } => {
                let known = self.find(node, &eni);
                known
                    .secondary
                    .retain(|address| !addresses.contains(address));
                Reply::Done
            }
            Call::UnassignIpv6Addresses { .. } => unreachable!("these are IPv4 nodes"),
            Call::DescribeSubnets { .. } => {
                let (subnet, cidr) = subnet(node);
                Reply::Subnets(vec![Subnet {
                    subnet,
                    cidr,
                    zone: Some("eu-west-1a".to_owned()),
                    free: 50_000,
                    tags: [].into(),
                }])
            }
            Call::DescribeRouteTables { .. } => unreachable!("there is no choice"),
        }
    }

    fn find(&mut self, node: usize, id: &EniId) -> &mut Interface {
        let mut own = self.interfaces[node].iter_mut();
        own.find(|eni| eni.eni == *id)
            .expect("a node uses only ids that it received")
    }

    fn interface(&mut self, node: usize, secondary: u16) -> Interface {
        self.made += 1;
        let [a, b, c, d] = self.made.to_be_bytes();
        Interface {
            eni: EniId(format!("eni-{:017x}", self.made)),
            mac: Mac([2, 0, a, b, c, d]),
            subnet: subnet(node).0,
            primary: Some(self.address(node)),
            secondary: (0..secondary).map(|_| self.address(node)).collect(),
            prefixes: Vec::new(),
            vpc: Some("vpc-1".to_owned()),
            zone: Some("eu-west-1a".to_owned()),
            status: "in-use".to_owned(),
            interface_type: "interface".to_owned(),
            managed_by_aws: false,
            groups: Vec::new(),
            description: String::new(),
            requester: None,
            tags: [].into(),
            attachment: None,
        }
    }

    fn address(&mut self, node: usize) -> Ipv4Addr {
        let taken = &mut self.taken[node / PER_SUBNET];
        *taken += 1;
        // EC2 reserves the first four.
        Ipv4Addr::from(u32::from(subnet(node).1.network()) + 3 + *taken)
    }
}

/// The filters that the daemon uses.
fn matches(eni: &Interface, name: &str, value: &str) -> bool {
    let instance = eni
        .attachment
        .as_ref()
        .and_then(|attachment| attachment.instance.as_deref());
    match name {
        "attachment.instance-id" => instance == Some(value),
        "status" => (value == "available") == eni.attachment.is_none(),
        "network-interface-id" => eni.eni.0 == value,
        _ => name
            .strip_prefix("tag:")
            .and_then(|key| eni.tags.get(key))
            .is_some_and(|tag| tag == value),
    }
}

/// The id of a node's instance.
#[must_use]
pub fn instance(node: usize) -> String {
    format!("i-{node:017x}")
}

/// A node's subnet.
///
/// # Panics
/// Above 255,000 nodes.
#[must_use]
pub fn subnet(node: usize) -> (SubnetId, Ipv4Net) {
    let n = u8::try_from(node / PER_SUBNET).expect("a fleet of fewer than 255,000");
    let cidr = Ipv4Net::new(Ipv4Addr::new(10, n, 0, 0), 16).expect("16 is a length");
    (SubnetId(format!("subnet-{n:017x}")), cidr)
}

fn attachment(eni: &EniId, node: usize, device: u16) -> Attachment {
    Attachment {
        id: AttachmentId(format!("eni-attach-{}", &eni.0[4..])),
        instance: Some(instance(node)),
        account: None,
        card: 0,
        device,
        status: "attached".to_owned(),
    }
}

const fn count(amount: Amount) -> u16 {
    match amount {
        Amount::Addresses(n) => n,
        Amount::Prefixes(_) | Amount::Ipv6Prefixes(_) => {
            panic!("these nodes use single addresses")
        }
    }
}
