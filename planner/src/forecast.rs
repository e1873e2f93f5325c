//! What a policy will hold: runs the real planner in virtual time on a node where nothing fails.
//!
//! Owns an EC2 that answers at once and never runs out of addresses, and pods that come one at a time. It shares nothing
//! with a live node. It has no faults and no deletions.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    Amount, Answer, AttachmentId, Command, Config, EniClass, EniId, Event, InstanceType, Mac, Mono,
    Observed, Op, Placement, Planner, Pod, Sandbox, SubnetId, Ticket,
    event::EniAttachment,
    placement::{Candidate, Inquiry, SubnetList},
};

/// How long each number of pods lasts before the result is read. It is longer than a fixed target needs to settle, and
/// longer than the half-hour in which a pool that sizes itself halves its memory of bursts.
pub const BETWEEN: Duration = Duration::from_secs(3600);

/// What the node holds for a number of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub pods: u32,
    pub enis: u32,
    /// Pod addresses, in use or free.
    pub addresses: u32,
    pub free: u32,
    /// /28 prefixes. Their addresses are included in `addresses`.
    pub prefixes: u32,
    /// Addresses of the subnet that are taken: the pods' and the ENIs' own.
    pub subnet_addresses: u32,
    /// EC2 calls that change something, since the node started.
    pub calls: u64,
}

/// `class`: what the node's ENIs are like. One holding for each number of pods from 0 up to `pods` or the instance's limit, whichever is less.
#[must_use]
pub fn forecast(
    instance: &InstanceType,
    config: &Config,
    class: &EniClass,
    pods: u32,
) -> Vec<Holding> {
    let mut node = Node::new(instance, config, class.clone());
    let limit = node.planner.pod_limit().addresses.min(pods);
    let mut held = vec![node.rest()];
    for n in 1..=limit {
        node.add(n);
        held.push(node.rest());
    }
    held
}

/// The network of the node's subnet. Nothing routes it.
const SUBNET: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8);

/// A node and its EC2.
struct Node {
    planner: Planner,
    now: Mono,
    enis: BTreeMap<EniId, Observed>,
    events: VecDeque<Event>,
    next: u32,
    pods: u32,
}

impl Node {
    fn new(instance: &InstanceType, config: &Config, class: EniClass) -> Self {
        let placement = Placement {
            class: Ok(class),
            ..Placement::like_primary("subnet".into())
        };
        let mut node = Self {
            planner: Planner::new(config.clone(), instance.clone(), placement, 1),
            now: Mono::ZERO,
            enis: BTreeMap::new(),
            events: VecDeque::new(),
            next: 1,
            pods: 0,
        };
        let primary = node.create("subnet".into(), Amount::Addresses(0));
        node.attach(&primary.eni, instance.default_card, 0);
        let list = node.list();
        node.events.push_back(Event::Inventory(list));
        node
    }

    fn add(&mut self, n: u32) {
        self.pods = n;
        self.events.push_back(Event::Add {
            ticket: Ticket(n.into()),
            sandbox: Sandbox {
                network: "forecast".into(),
                container_id: n.to_string(),
                ifname: "eth0".into(),
            },
            pod: Pod::default(),
            deadline: self.now + BETWEEN,
        });
    }

    /// Lets [`BETWEEN`] pass and reads the result.
    fn rest(&mut self) -> Holding {
        let end = self.now + BETWEEN;
        loop {
            while let Some(event) = self.events.pop_front() {
                for command in self.planner.on(event, self.now) {
                    self.carry_out(command);
                }
            }
            match self.planner.next_deadline().filter(|due| *due <= end) {
                Some(due) => self.now = due,
                None => break,
            }
            self.events.push_back(Event::Tick);
        }
        self.now = end;
        let (totals, counters) = (self.planner.totals(), self.planner.counters());
        let own = u32::try_from(self.enis.len()).unwrap_or(u32::MAX);
        let addresses = totals.free + totals.reserved + totals.assigned + totals.cooling;
        Holding {
            pods: self.pods,
            enis: totals.enis,
            addresses,
            free: totals.free,
            prefixes: totals.prefixes,
            subnet_addresses: addresses + own,
            calls: counters.creates
                + counters.attaches
                + counters.modifies
                + counters.assigns
                + counters.unassigns
                + counters.detaches
                + counters.deletes,
        }
    }

    fn carry_out(&mut self, command: Command) {
        let (op, answer) = match command {
            Command::Grant { sandbox, .. } => {
                return self.events.push_back(Event::Wired { sandbox });
            }
            // The pods are beyond the limit, or the policy may not grow. The holding shows it.
            Command::Refuse { .. } | Command::GrantAgain { .. } => return,
            Command::CreateEni { op, spec, .. } => {
                (op, Answer::Created(self.create(spec.subnet, spec.amount)))
            }
            Command::AttachEni {
                op,
                eni,
                card,
                device,
            } => {
                let attachment = self.attach(&eni, card, device);
                (op, Answer::Attached { attachment })
            }
            Command::Assign { op, eni, amount } => (op, self.assign(&eni, amount)),
            Command::Unassign {
                op,
                eni,
                addresses,
                prefixes,
            } => {
                if let Some(eni) = self.enis.get_mut(&eni) {
                    eni.addresses.retain(|a| !addresses.contains(a));
                    eni.prefixes.retain(|p| !prefixes.contains(p));
                }
                (op, Answer::Done)
            }
            Command::DetachEni { op, eni, .. } => {
                if let Some(eni) = self.enis.get_mut(&eni) {
                    eni.attached = None;
                }
                (op, Answer::Done)
            }
            Command::DeleteEni { op, eni } => {
                self.enis.remove(&eni);
                (op, Answer::Done)
            }
            Command::Describe { op } => (op, Answer::Described(self.list())),
            // A subnet that is not listed would not be used.
            Command::DescribeSubnets { op, inquiry, .. } => {
                (op, Answer::Subnets(subnets(&inquiry)))
            }
            Command::ConfigureEni(what) => (what.op, Answer::Done),
            Command::DeleteOnTermination { op, .. }
            | Command::SetGroups { op, .. }
            | Command::DeconfigureEni { op, .. } => (op, Answer::Done),
        };
        self.answer(op, answer);
    }

    fn answer(&mut self, op: Op, answer: Answer) {
        let result = Ok(answer);
        self.events.push_back(Event::Answered { op, result });
    }

    fn list(&self) -> Vec<Observed> {
        self.enis.values().cloned().collect()
    }

    fn create(&mut self, subnet: SubnetId, amount: Amount) -> Observed {
        let primary = self.address();
        let id = EniId(format!("eni-{primary}"));
        let eni = Observed {
            eni: id.clone(),
            mac: Mac([0x02, 0, 0, 0, 0, 0]),
            subnet,
            subnet_cidr: Some(SUBNET),
            security_groups: Vec::new(),
            primary,
            addresses: Vec::new(),
            prefixes: Vec::new(),
            attached: None,
            managed: true,
            tagged_ours: true,
        };
        self.enis.insert(id.clone(), eni.clone());
        self.assign(&id, amount);
        self.enis.get(&id).cloned().unwrap_or(eni)
    }

    fn attach(&mut self, eni: &EniId, card: u16, device: u16) -> AttachmentId {
        let attachment = AttachmentId(format!("attach-{eni}"));
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.attached = Some(EniAttachment {
                id: attachment.clone(),
                card,
                device,
                settled: true,
            });
        }
        attachment
    }

    fn assign(&mut self, eni: &EniId, amount: Amount) -> Answer {
        let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
        match amount {
            Amount::Addresses(n) => addresses.extend((0..n).map(|_| IpAddr::V4(self.address()))),
            Amount::Prefixes(n) => prefixes.extend((0..n).map(|_| IpNet::V4(self.prefix()))),
            Amount::Ipv6Prefixes(n) => prefixes.extend((0..n).map(|_| self.ipv6_prefix())),
        }
        if let Some(eni) = self.enis.get_mut(eni) {
            eni.addresses.extend(&addresses);
            eni.prefixes.extend(&prefixes);
        }
        Answer::Assigned {
            addresses,
            prefixes,
        }
    }

    fn address(&mut self) -> Ipv4Addr {
        self.next += 1;
        Ipv4Addr::from(0x0a00_0000 + self.next)
    }

    fn ipv6_prefix(&mut self) -> IpNet {
        self.next += 1;
        let first = Ipv6Addr::from(u128::from(self.next) << 48);
        IpNet::V6(Ipv6Net::new_assert(first, 80))
    }

    fn prefix(&mut self) -> Ipv4Net {
        self.next = (self.next / 16 + 1) * 16;
        let first = Ipv4Addr::from(0x0a00_0000 + self.next);
        self.next += 15;
        Ipv4Net::new(first, 28).expect("28 is a prefix length")
    }
}

/// EC2's answer: all of them exist, and none ever runs out.
fn subnets(inquiry: &Inquiry) -> SubnetList {
    let Inquiry::These(ids) = inquiry else {
        return SubnetList::default();
    };
    let candidate = |id: &SubnetId| Candidate {
        subnet: id.clone(),
        zone: None,
        cidr: SUBNET,
        free: u32::MAX,
        tags: BTreeMap::new(),
        route_table: None,
    };
    SubnetList {
        zone: None,
        subnets: ids.iter().map(candidate).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::require;

    fn hold(config: &Config, pods: u32) -> Vec<Holding> {
        let class = EniClass::like_primary();
        forecast(require("m5.large").unwrap(), config, &class, pods)
    }

    #[test]
    fn a_warm_ip_target_follows_the_pods() {
        let config = Config {
            warm_ip_target: Some(2),
            ..Config::default()
        };
        let held = hold(&config, 11);
        let shape = |n: usize| (held[n].enis, held[n].addresses, held[n].free);
        assert_eq!(shape(0), (1, 2, 2));
        assert_eq!(shape(7), (1, 9, 2));
        assert_eq!(shape(8), (2, 10, 2));
        assert_eq!(held[11].subnet_addresses, 13 + 2);
        assert_eq!(held[11].pods, 11);
    }

    #[test]
    fn a_warm_eni_target_takes_enis_as_a_whole() {
        let held = hold(&Config::upstream(), 10);
        assert_eq!((held[0].enis, held[0].addresses), (1, 9));
        assert_eq!((held[1].enis, held[1].addresses), (2, 18));
        assert_eq!((held[10].enis, held[10].addresses), (3, 27));
    }

    #[test]
    fn prefixes_are_counted() {
        let config = Config {
            prefix_delegation: true,
            warm_prefix_target: Some(1),
            ..Config::default()
        };
        let held = hold(&config, 17);
        assert_eq!((held[0].prefixes, held[0].addresses), (1, 16));
        assert_eq!((held[1].prefixes, held[17].prefixes), (2, 3));
    }

    #[test]
    fn the_limit_ends_it() {
        let config = Config {
            warm_ip_target: Some(1),
            ..Config::default()
        };
        let held = hold(&config, 1000);
        assert_eq!(held.len(), 28);
        let last = held.last().unwrap();
        assert_eq!((last.pods, last.addresses, last.enis), (27, 27, 3));
    }

    #[test]
    fn a_pool_that_sizes_itself_has_something_to_spare_and_settles() {
        let held = hold(&Config::default(), 27);
        for holding in &held[..25] {
            assert!(holding.free > 0, "{holding:?}");
        }
        assert!(held[5].addresses < 27, "{:?}", held[5]);
    }
}
