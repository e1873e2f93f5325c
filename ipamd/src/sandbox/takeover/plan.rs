//! What a takeover would do: every address of the AWS VPC CNI is classified, and what does not fit together is refused. Pure.
//!
//! The kernel shows which pods live and which address each has. The checkpoint shows whose they are. EC2 shows which ENI has
//! the address. Nothing is guessed: where two of them contradict each other, the node is left alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use datapath::{
    host::ForeignPod,
    pod::{HostSide, upstream_host_name},
};
use ipnet::IpNet;
use nettypes::Asked;
use planner::{EniId, EniIndex, Family, Observed, Pod, Sandbox};
use proto::names::NETWORK;

use crate::state::{
    aws_node::{Allocation, Checkpoint, MIGRATED_NETWORK},
    store::Record,
    unknown::unknown,
};

/// The digits of the hash in the name of a pod's host end.
const DIGITS: usize = 11;
/// The most pods that a refusal names.
const NAMED: usize = 20;

/// What is known before anything is changed.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// Each with its network card.
    pub checkpoints: &'a [(u16, Checkpoint)],
    /// Of the AWS VPC CNI, alive.
    pub pods: &'a [ForeignPod],
    /// Pods that are Hawser's already.
    pub own: &'a [HostSide],
    /// Those that are attached to this node.
    pub enis: &'a [Observed],
    /// The network card of the primary ENI.
    pub default_card: u16,
    /// Of the pods that Hawser serves.
    pub family: Family,
    /// Filters on pods' links are no reason to refuse.
    pub despite_policies: bool,
}

/// A pod that becomes Hawser's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adoption {
    pub record: Record,
    /// The index of its host end.
    pub host_index: u32,
    /// The checkpoint shows whose it is.
    pub recorded: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Recorded and alive, or alive without a record.
    pub adopt: Vec<Adoption>,
    /// Recorded and dead: their addresses rest.
    pub dead: Vec<Allocation>,
    /// All other addresses of the node's ENIs. They rest too: nobody recorded when they were released.
    pub free: Vec<IpAddr>,
    /// Links like those of pods, without an address or a record. They stay as they are.
    pub unexplained: Vec<String>,
    /// Links of pods whose inside the kernel does not show: their addresses are not verified.
    pub unverified: Vec<String>,
    pub refusals: Vec<Refusal>,
}

/// Why the node cannot be taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error(
        "{} have an ENI of their own (security groups for pods), which Hawser does not serve: move them to another node", list(.0)
    )]
    Branch(Vec<String>),
    #[error(
        "{} have interfaces on several network cards (ENABLE_MULTI_NIC), which Hawser does not serve: move them to another node", list(.0)
    )]
    SeveralCards(Vec<String>),
    #[error(
        "network policies are in force for {}, and nobody would keep them up to date without the agent in the pod of aws-node: run \
         another policy engine first, or set HAWSER_TAKEOVER_DESPITE_POLICIES=true", list(.0)
    )]
    Policies(Vec<String>),
    #[error("the checkpoint has {0} twice: drain the node")]
    Twice(IpAddr),
    #[error(
        "{pod} has {address}, which is on no ENI that is attached to this node: EC2 may have reassigned it; delete the pod"
    )]
    NotHere { pod: String, address: IpAddr },
    #[error(
        "the checkpoint says that {address} is of {pod}, but the kernel routes it to {link}, another pod's link: delete both pods"
    )]
    OtherLink {
        address: IpAddr,
        pod: String,
        link: String,
    },
    #[error(
        "the node routes {address} to {link}, but inside the pod the other end of this link has {}: delete the pod",
        list(inside)
    )]
    OtherInside {
        link: String,
        address: IpAddr,
        inside: Vec<IpAddr>,
    },
    #[error(
        "{link} has several addresses, {}, and the checkpoint has none of them for its pod: delete the pod",
        list(addresses)
    )]
    Ambiguous {
        link: String,
        addresses: Vec<IpAddr>,
    },
    #[error(
        "{address} is of a pod of Hawser and of {pod}, a pod of the AWS VPC CNI: delete both pods"
    )]
    Shared { address: IpAddr, pod: String },
    #[error(
        "{pod} has {address}, and this node is configured for pods of the other family (ENABLE_IPv6, ENABLE_IPv4)"
    )]
    OtherFamily { pod: String, address: IpAddr },
    #[error(
        "EC2 does not show the subnet of {eni}, which has pods: give the node's role ec2:DescribeSubnets, or drain the node"
    )]
    NoSubnet { eni: EniId },
    #[error(
        "{} have neither an address nor a record, and the checkpoint has entries without a pod's name: which address is whose is \
         not known; drain the node", list(.0)
    )]
    Unclear(Vec<String>),
}

fn list<T: ToString>(all: &[T]) -> String {
    let mut shown: Vec<_> = all.iter().take(NAMED).map(T::to_string).collect();
    if all.len() > NAMED {
        shown.push(format!("and {} more", all.len() - NAMED));
    }
    shown.join(", ")
}

/// Classifies everything.
#[must_use]
pub fn plan(evidence: &Evidence<'_>) -> Plan {
    let mut work = Work {
        evidence,
        indices: indices(evidence.enis, evidence.default_card),
        alive: BTreeSet::new(),
        plan: Plan::default(),
    };
    work.refuse_what_is_not_served();
    work.refuse_doubles();
    for pod in evidence.pods.iter().filter(|pod| !pod.branch) {
        work.classify(pod);
    }
    work.classify_the_rest();
    work.plan
}

/// The index that the pool will give to each ENI when it restores them: that of the device, as long as it is free.
#[must_use]
pub fn indices(enis: &[Observed], default_card: u16) -> BTreeMap<EniId, EniIndex> {
    let mut attached: Vec<_> = enis
        .iter()
        .filter_map(|eni| Some((eni, eni.attached.as_ref()?)))
        .collect();
    attached.sort_by_key(|(_, attachment)| attachment.device);
    let mut given: BTreeMap<EniId, EniIndex> = BTreeMap::new();
    for (eni, attachment) in attached {
        let taken = |index: &EniIndex| given.values().any(|other| other == index);
        let by_device = (attachment.card == 0 && attachment.device > 0)
            .then(|| EniIndex::new(attachment.device))
            .flatten();
        let index = if attachment.card == default_card && attachment.device == 0 {
            Some(EniIndex::PRIMARY)
        } else {
            by_device
                .filter(|index| !taken(index))
                .or_else(|| EniIndex::secondary().find(|index| !taken(index)))
        };
        if let Some(index) = index {
            given.insert(eni.eni.clone(), index);
        }
    }
    given
}

struct Work<'a> {
    evidence: &'a Evidence<'a>,
    indices: BTreeMap<EniId, EniIndex>,
    /// Addresses of pods that live.
    alive: BTreeSet<IpAddr>,
    plan: Plan,
}

impl<'a> Work<'a> {
    fn refuse_what_is_not_served(&mut self) {
        let pods = self.evidence.pods;
        let named = |wanted: &dyn Fn(&&ForeignPod) -> bool| -> Vec<String> {
            let found = pods.iter().filter(wanted);
            found.map(|pod| self.name_of(pod)).collect()
        };
        let branch = named(&|pod| pod.branch);
        let filtered = named(&|pod| pod.filtered);
        let cards = self.entries().filter(|(card, entry)| {
            let has_link = |name: &str| pods.iter().any(|pod| digits(&pod.link.name) == name);
            let further = |(namespace, name): (&str, &str)| {
                has_link(&upstream_host_name(
                    "",
                    namespace,
                    &format!("{name}.{card}"),
                ))
            };
            *card > 0 && entry.pod().is_some_and(further)
        });
        let cards: Vec<_> = cards.map(|(_, entry)| full_name(entry)).collect();
        let refusals = &mut self.plan.refusals;
        refusals.extend((!branch.is_empty()).then_some(Refusal::Branch(branch)));
        refusals.extend((!cards.is_empty()).then_some(Refusal::SeveralCards(cards)));
        if !filtered.is_empty() && !self.evidence.despite_policies {
            refusals.push(Refusal::Policies(filtered));
        }
    }

    fn refuse_doubles(&mut self) {
        let mut seen = BTreeSet::new();
        for address in self.entries().filter_map(|(_, entry)| entry.address()) {
            if !seen.insert(address) {
                self.plan.refusals.push(Refusal::Twice(address));
            }
        }
    }

    fn entries(&self) -> impl Iterator<Item = (u16, &'a Allocation)> + use<'a> {
        let all = self.evidence.checkpoints.iter();
        all.flat_map(|(card, file)| file.allocations.iter().map(|entry| (*card, entry)))
    }

    /// The entries of the pod whose host end has this name. A pod that was created again has several.
    fn of_link(&self, name: &str) -> Vec<&'a Allocation> {
        let digits = digits(name).to_owned();
        let of_pod = |entry: &&Allocation| {
            let pod = entry.pod();
            pod.is_some_and(|(namespace, name)| upstream_host_name("", namespace, name) == digits)
        };
        let first = self.entries().filter(|(card, _)| *card == 0);
        first.map(|(_, entry)| entry).filter(of_pod).collect()
    }

    /// A living pod's address and entry.
    fn classify(&mut self, pod: &ForeignPod) {
        let own = self.of_link(&pod.link.name);
        let recorded = |address: IpAddr| own.iter().find(|e| e.address() == Some(address)).copied();
        // Where the route was lost, the pod's own end still has the address.
        let witnesses = match &pod.addresses[..] {
            [] => &pod.inside,
            routed => routed,
        };
        let (address, entry) = match witnesses {
            [] => {
                // The youngest entry is the pod's that has the link, unless its address is elsewhere.
                let elsewhere = |entry: &&&Allocation| {
                    let address = entry.address();
                    let routed =
                        |other: &ForeignPod| other.addresses.iter().any(|a| Some(*a) == address);
                    self.evidence.pods.iter().any(routed)
                };
                let youngest = own.iter().filter(|e| !elsewhere(e)).max_by_key(|e| e.since);
                match youngest.and_then(|entry| Some((entry.address()?, *entry))) {
                    Some((address, entry)) => (address, Some(entry)),
                    None => return self.plan.unexplained.push(pod.link.name.clone()),
                }
            }
            [address] => (*address, recorded(*address)),
            several => match several.iter().find(|address| recorded(**address).is_some()) {
                Some(address) => (*address, recorded(*address)),
                None => {
                    let (link, addresses) = (pod.link.name.clone(), several.to_vec());
                    return self
                        .plan
                        .refusals
                        .push(Refusal::Ambiguous { link, addresses });
                }
            },
        };
        self.alive.insert(address);
        if !pod.inside.is_empty() && !pod.inside.contains(&address) {
            let (link, inside) = (pod.link.name.clone(), pod.inside.clone());
            return self.plan.refusals.push(Refusal::OtherInside {
                link,
                address,
                inside,
            });
        }
        if pod.inside.is_empty() {
            self.plan.unverified.push(pod.link.name.clone());
        }
        let entry = match entry.or_else(|| self.by_address(address)) {
            // An entry of another pod: the address was moved, or the checkpoint is old.
            Some(other) if entry.is_none() && other.pod().is_some() => {
                let (pod, link) = (full_name(other), pod.link.name.clone());
                return self
                    .plan
                    .refusals
                    .push(Refusal::OtherLink { address, pod, link });
            }
            found => found,
        };
        self.adopt(pod, address, entry);
    }

    fn by_address(&self, address: IpAddr) -> Option<&'a Allocation> {
        let mut all = self.entries().map(|(_, entry)| entry);
        all.find(|entry| entry.address() == Some(address))
    }

    fn adopt(&mut self, pod: &ForeignPod, address: IpAddr, entry: Option<&Allocation>) {
        let name = entry.map_or_else(|| pod.link.name.clone(), full_name);
        let enis = self.evidence.enis;
        let refusal = match enis.iter().find(|eni| holds(eni, address)) {
            _ if Family::of(address) != self.evidence.family => {
                Refusal::OtherFamily { pod: name, address }
            }
            _ if self.is_own(address) => Refusal::Shared { address, pod: name },
            None => Refusal::NotHere { pod: name, address },
            Some(eni) => match self.indices.get(&eni.eni) {
                Some(index) if eni.subnet_cidr.is_some() || *index == EniIndex::PRIMARY => {
                    let record = record(pod, address, entry, (&eni.eni, *index));
                    return self.plan.adopt.push(Adoption {
                        record,
                        host_index: pod.link.index,
                        recorded: entry.is_some(),
                    });
                }
                _ => Refusal::NoSubnet {
                    eni: eni.eni.clone(),
                },
            },
        };
        self.plan.refusals.push(refusal);
    }

    fn is_own(&self, address: IpAddr) -> bool {
        let mut own = self.evidence.own.iter();
        own.any(|link| link.address == Some(address))
    }

    /// Dead entries, and free addresses.
    fn classify_the_rest(&mut self) {
        let gone = |address: IpAddr| !self.alive.contains(&address) && !self.is_own(address);
        let dead = self.entries().map(|(_, entry)| entry);
        let dead: Vec<_> = dead
            .filter(|entry| entry.address().is_some_and(gone))
            .cloned()
            .collect();
        let recorded: BTreeSet<IpAddr> = dead.iter().filter_map(Allocation::address).collect();
        let free = self.evidence.enis.iter().flat_map(addresses);
        let free: BTreeSet<IpAddr> = free
            .filter(|address| gone(*address) && !recorded.contains(address))
            .collect();
        if !self.plan.unexplained.is_empty() && dead.iter().any(|entry| entry.pod().is_none()) {
            let links = self.plan.unexplained.clone();
            self.plan.refusals.push(Refusal::Unclear(links));
        }
        self.plan.free = free.into_iter().collect();
        self.plan.dead = dead;
    }

    /// The pod's name, or that of its link.
    fn name_of(&self, pod: &ForeignPod) -> String {
        let entry = self.of_link(&pod.link.name).into_iter().next();
        entry.map_or_else(|| pod.link.name.clone(), full_name)
    }
}

fn full_name(entry: &Allocation) -> String {
    match entry.pod() {
        Some((namespace, name)) => format!("{namespace}/{name}"),
        None => format!("container {}", entry.container_id),
    }
}

fn record(
    pod: &ForeignPod,
    address: IpAddr,
    entry: Option<&Allocation>,
    (eni, index): (&EniId, EniIndex),
) -> Record {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let named = entry.map(|entry| Pod {
        namespace: text(&entry.metadata.namespace),
        name: text(&entry.metadata.name),
        uid: None,
    });
    Record {
        sandbox: entry.map_or_else(|| unknown(&pod.link.name), sandbox),
        pod: named.unwrap_or_default(),
        address,
        eni: eni.clone(),
        index,
        host_name: pod.link.name.clone(),
        host_mac: pod.link.mac,
        pod_mac: pod.pod_mac,
        mtu: Some(pod.link.mtu),
        secondary: false,
        // Plugins behind the old one provided it, and still do.
        asked: Asked::default(),
        egress: None,
    }
}

/// The key under which the runtime will ask. In the oldest entries it has only the container's id.
fn sandbox(entry: &Allocation) -> Sandbox {
    if entry.network != MIGRATED_NETWORK {
        return entry.sandbox();
    }
    Sandbox {
        network: NETWORK.to_owned(),
        container_id: entry.container_id.clone(),
        ifname: "eth0".to_owned(),
    }
}

fn digits(name: &str) -> &str {
    let prefix = name.len().saturating_sub(DIGITS);
    name.get(prefix..).unwrap_or_default()
}

fn holds(eni: &Observed, address: IpAddr) -> bool {
    eni.attached.is_some()
        && (eni.addresses.contains(&address)
            || eni.prefixes.iter().any(|net| net.contains(&address)))
}

/// The addresses that pods could get, except those of IPv6 prefixes, which are too many to be reused soon.
fn addresses(eni: &Observed) -> Vec<IpAddr> {
    let mut all = eni.addresses.clone();
    for prefix in &eni.prefixes {
        if let IpNet::V4(prefix) = prefix {
            let first = u32::from(prefix.network());
            let each = first..=u32::from(prefix.broadcast());
            all.extend(each.map(|n| IpAddr::from(n.to_be_bytes())));
        }
    }
    all
}

/// For people, before it is carried out.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = self.adopt.iter().filter(|pod| pod.recorded).count();
        writeln!(
            f,
            "pods: {} recorded and alive, {} alive without a record, {} recorded and dead",
            recorded,
            self.adopt.len() - recorded,
            self.dead.len()
        )?;
        writeln!(
            f,
            "addresses that rest: {}",
            self.free.len() + self.dead.len()
        )?;
        for pod in &self.adopt {
            let record = &pod.record;
            let name = record.pod.full_name();
            let name = name.unwrap_or_else(|| "(no record)".to_owned());
            let Record {
                address,
                host_name,
                eni,
                ..
            } = record;
            writeln!(f, "  adopt    {address:<16} {host_name:<15} {eni} {name}")?;
        }
        for entry in &self.dead {
            let address = entry.address().map(|a| a.to_string()).unwrap_or_default();
            writeln!(f, "  release  {address:<16} {}", full_name(entry))?;
        }
        for link in &self.unverified {
            writeln!(
                f,
                "  unknown  {link}: the kernel does not show the address of its other end"
            )?;
        }
        for link in &self.unexplained {
            writeln!(f, "  leave    {link}: neither an address nor a record")?;
        }
        for refusal in &self.refusals {
            writeln!(f, "  refused  {refusal}")?;
        }
        Ok(())
    }
}
