//! A small EC2 and kernel that execute commands, with delays and injected faults, and keep the ledger against which the
//! invariants are checked. It shares no code with the planner's own state.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    Amount, Answer, Class, Command, Config, EniId, EniIndex, Event, Failure, Mac, Mono, Observed,
    Op, Placement, Planner, Pod, Refusal, Sandbox, SecurityGroupId, SubnetId, Ticket,
    event::EniAttachment,
    gate::Action,
    limits::require,
    machine::Planner as Machine,
    placement::{Candidate, EniClass, NoClass, SubnetList},
    scope::subnets::ROLE_TAG,
};

mod ec2;

pub fn sandbox(n: u32) -> Sandbox {
    Sandbox {
        network: "hawser".into(),
        container_id: format!("c{n}"),
        ifname: "eth0".into(),
    }
}

#[derive(Clone, Debug)]
pub struct WorldEni {
    pub observed: Observed,
    pub configured: bool,
}

/// What happens to one call.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done.
    Refuse(Class),
    /// It is done, and the answer is ambiguous.
    LoseReply,
    /// It is done, and there is no answer.
    Silence,
}

/// A different one for each ENI.
fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

/// A subnet in addition to the primary ENI's.
#[derive(Clone, Debug)]
pub struct Plot {
    /// Free addresses.
    pub left: usize,
    pub fragmented: bool,
    /// How EC2 refuses new ENIs here.
    pub refuses: Option<Class>,
    pub listed: Candidate,
}

fn candidate(id: &str, free: usize) -> Candidate {
    Candidate {
        subnet: id.into(),
        zone: Some("a".into()),
        cidr: "10.0.0.0/8".parse().unwrap(),
        free: u32::try_from(free).unwrap(),
        tags: BTreeMap::new(),
        route_table: None,
    }
}

pub struct World {
    pub planner: Planner,
    pub now: Mono,
    pub latency: Duration,
    pub cooldown: Duration,
    pub max_enis: usize,
    pub slots: usize,
    pub enis: BTreeMap<EniId, WorldEni>,
    /// Free addresses of the subnet.
    pub left: usize,
    /// There is no free /28.
    pub fragmented: bool,
    /// Subnets in addition to the primary ENI's, and what EC2 lists of it.
    pub plots: BTreeMap<SubnetId, Plot>,
    pub home: Candidate,
    /// The next faults per action, in order.
    pub faults: BTreeMap<Action, Vec<Fault>>,
    pub log: Vec<Command>,
    pub granted: BTreeMap<Ticket, (Sandbox, IpAddr, bool)>,
    pub refused: BTreeMap<Ticket, Refusal>,
    pub asked: BTreeSet<Ticket>,
    /// Which sandbox has which address, by the world's own ledger.
    pub live: BTreeMap<Sandbox, IpAddr>,
    pub rested: BTreeMap<IpAddr, Mono>,
    pub auto_wire: bool,
    pub unwired: Vec<Sandbox>,
    answers: BTreeMap<(Mono, u64), (Op, Result<Answer, Failure>)>,
    by_token: BTreeMap<String, EniId>,
    next: u32,
    seq: u64,
    next_ticket: u64,
    /// Addresses that another actor moved away. The ledger permits their absence.
    pub stolen: BTreeSet<IpAddr>,
}

impl World {
    /// The number of ENIs that EC2 has attached to the node.
    pub fn attached(&self) -> usize {
        let enis = self.enis.values();
        enis.filter(|eni| eni.observed.attached.is_some()).count()
    }

    /// A node with its primary ENI and no pod addresses, listed and settled.
    pub fn new(instance: &str, config: Config) -> Self {
        let mut world = Self::bare(instance, config);
        world.start();
        world
    }

    pub fn bare(instance: &str, config: Config) -> Self {
        Self::placed(instance, config, Ok(EniClass::like_primary()))
    }

    /// The same with another class of ENIs.
    pub fn placed(instance: &str, config: Config, class: Result<EniClass, NoClass>) -> Self {
        let kind = require(instance).unwrap().clone();
        let (max_enis, slots) = (
            usize::from(kind.max_enis),
            usize::from(kind.slots_per_eni()),
        );
        let cooldown = config.cooldown;
        let mut world = Self {
            planner: Machine::new(config, kind, placement(class), 42),
            now: Mono::from_epoch(Duration::from_secs(1000)),
            latency: Duration::from_millis(500),
            cooldown,
            max_enis,
            slots,
            enis: BTreeMap::new(),
            left: 100_000,
            fragmented: false,
            plots: BTreeMap::new(),
            home: candidate("subnet-1", 0),
            faults: BTreeMap::new(),
            log: Vec::new(),
            granted: BTreeMap::new(),
            refused: BTreeMap::new(),
            asked: BTreeSet::new(),
            live: BTreeMap::new(),
            rested: BTreeMap::new(),
            auto_wire: true,
            unwired: Vec::new(),
            answers: BTreeMap::new(),
            by_token: BTreeMap::new(),
            next: 0,
            seq: 0,
            next_ticket: 0,
            stolen: BTreeSet::new(),
        };
        world.foreign(0, true);
        world
    }

    pub fn start(&mut self) {
        let list = self.listing();
        self.send(Event::Inventory(list));
        self.run(60);
    }

    /// Restarts the daemon: it knows nothing, and gets no old answers.
    pub fn restart(&mut self, instance: &str, config: Config) {
        let class = self.planner.class.clone();
        let kind = require(instance).unwrap().clone();
        self.planner = Machine::new(config, kind, placement(class), 43);
        self.answers.clear();
        self.granted.clear();
        self.log.clear();
    }

    /// An ENI that already existed.
    pub fn foreign(&mut self, device: u16, managed: bool) -> EniId {
        let id = self.create(Amount::Addresses(0));
        let attachment = EniAttachment {
            id: format!("attach-{id}").as_str().into(),
            card: 0,
            device,
            settled: true,
        };
        let eni = self.enis.get_mut(&id).unwrap();
        eni.observed.attached = Some(attachment);
        eni.observed.managed = managed;
        eni.observed.tagged_ours = managed;
        id
    }

    pub fn listing(&self) -> Vec<Observed> {
        self.enis.values().map(|eni| eni.observed.clone()).collect()
    }

    /// Another subnet of the node's zone, tagged for pods.
    pub fn plot(&mut self, id: &str, left: usize) -> &mut Plot {
        let mut listed = candidate(id, left);
        let tag = (ROLE_TAG.to_owned(), "1".to_owned());
        listed.tags.extend([tag]);
        let plot = Plot {
            left,
            fragmented: false,
            refuses: None,
            listed,
        };
        self.plots.entry(id.into()).or_insert(plot)
    }

    /// What EC2 lists of the subnets.
    pub fn subnet_list(&self) -> SubnetList {
        let mut subnets: Vec<_> = self
            .plots
            .values()
            .map(|plot| Candidate {
                free: u32::try_from(plot.left).unwrap(),
                ..plot.listed.clone()
            })
            .collect();
        subnets.push(Candidate {
            free: u32::try_from(self.left).unwrap(),
            ..self.home.clone()
        });
        SubnetList {
            zone: Some("a".into()),
            subnets,
        }
    }

    /// The subnets in which ENIs were created, in order.
    pub fn created_in(&self) -> Vec<&str> {
        let made = self.log.iter().filter_map(|command| match command {
            Command::CreateEni { spec, .. } => Some(spec.subnet.0.as_str()),
            _ => None,
        });
        made.collect()
    }

    fn address(&mut self) -> Ipv4Addr {
        self.next += 1;
        Ipv4Addr::from(0x0a00_0000 + self.next)
    }

    fn prefix(&mut self) -> IpNet {
        self.next = (self.next / 16 + 1) * 16;
        let net = Ipv4Net::new(Ipv4Addr::from(0x0a00_0000 + self.next), 28).unwrap();
        self.next += 15;
        net.into()
    }

    fn ipv6_prefix(&mut self) -> IpNet {
        self.next += 1;
        let number = 0x2600_1f14 << 96 | u128::from(self.next) << 48;
        Ipv6Net::new_assert(Ipv6Addr::from(number), 80).into()
    }

    pub fn create(&mut self, amount: Amount) -> EniId {
        self.create_in("subnet-1".into(), Vec::new(), amount)
    }

    pub fn create_in(
        &mut self,
        subnet: SubnetId,
        security_groups: Vec<SecurityGroupId>,
        amount: Amount,
    ) -> EniId {
        let id = EniId(format!("eni-{}", self.next));
        let observed = Observed {
            eni: id.clone(),
            mac: mac(self.next),
            subnet,
            subnet_cidr: Some("10.0.0.0/8".parse().unwrap()),
            security_groups,
            primary: self.address(),
            addresses: Vec::new(),
            prefixes: Vec::new(),
            attached: None,
            managed: true,
            tagged_ours: true,
        };
        self.enis.insert(
            id.clone(),
            WorldEni {
                observed,
                configured: false,
            },
        );
        self.give(&id, amount);
        id
    }

    pub fn give(&mut self, id: &EniId, amount: Amount) -> Answer {
        let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
        match amount {
            Amount::Addresses(n) => addresses.extend((0..n).map(|_| IpAddr::V4(self.address()))),
            Amount::Prefixes(n) => prefixes.extend((0..n).map(|_| self.prefix())),
            Amount::Ipv6Prefixes(n) => prefixes.extend((0..n).map(|_| self.ipv6_prefix())),
        }
        *self.left_in(id) -= addresses.len() + 16 * prefixes.len();
        let observed = &mut self.enis.get_mut(id).unwrap().observed;
        observed.addresses.extend(&addresses);
        observed.prefixes.extend(&prefixes);
        Answer::Assigned {
            addresses,
            prefixes,
        }
    }

    /// Free addresses of this ENI's subnet.
    fn left_in(&mut self, id: &EniId) -> &mut usize {
        let subnet = &self.enis[id].observed.subnet;
        match self.plots.get_mut(subnet) {
            Some(plot) => &mut plot.left,
            None => &mut self.left,
        }
    }

    pub fn fault(&mut self, action: Action, faults: impl IntoIterator<Item = Fault>) {
        self.faults.entry(action).or_default().extend(faults);
    }

    pub fn send(&mut self, event: Event) -> Vec<Command> {
        let commands = self.planner.on(event, self.now);
        let mut wired = Vec::new();
        for command in &commands {
            self.take(command, &mut wired);
            self.log.push(command.clone());
        }
        for sandbox in wired {
            if self.auto_wire {
                self.send(Event::Wired { sandbox });
            } else {
                self.unwired.push(sandbox);
            }
        }
        self.check();
        commands
    }

    pub fn add(&mut self, n: u32) -> Ticket {
        self.add_within(n, 60)
    }

    pub fn add_within(&mut self, n: u32, seconds: u64) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.asked.insert(ticket);
        let deadline = self.now + Duration::from_secs(seconds);
        self.send(Event::Add {
            ticket,
            sandbox: sandbox(n),
            pod: Pod::default(),
            deadline,
        });
        ticket
    }

    pub fn left(&mut self, n: u32) {
        if let Some(address) = self.live.remove(&sandbox(n)) {
            self.rested.insert(address, self.now);
        }
        self.send(Event::Left {
            sandbox: sandbox(n),
        });
    }

    /// Advances the time: answers arrive and deadlines are reached, in order.
    pub fn run(&mut self, seconds: u64) {
        let end = self.now + Duration::from_secs(seconds);
        loop {
            let answer = self.answers.keys().next().copied();
            let tick = self.planner.next_deadline();
            let next = [answer.map(|(at, _)| at), tick]
                .into_iter()
                .flatten()
                .min()
                .filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now = self.now.max(at);
            match answer.filter(|(due, _)| *due <= at) {
                Some(key) => {
                    let (op, result) = self.answers.remove(&key).unwrap();
                    self.send(Event::Answered { op, result });
                }
                None => {
                    self.send(Event::Tick);
                    assert!(
                        self.planner.next_deadline().is_none_or(|at| at > self.now),
                        "a tick that changes nothing"
                    );
                }
            }
        }
        self.now = end;
    }

    fn answer(&mut self, op: Op, result: Result<Answer, Failure>) {
        self.seq += 1;
        self.answers
            .insert((self.now + self.latency, self.seq), (op, result));
    }

    fn take(&mut self, command: &Command, wired: &mut Vec<Sandbox>) {
        let (op, action) = match command {
            Command::Grant { .. } => return self.granted(command, wired),
            Command::GrantAgain {
                ticket,
                sandbox,
                address,
                ..
            } => {
                self.accept(*ticket, sandbox, *address, true);
                let known = self.live.get(sandbox);
                assert_eq!(known, Some(address), "a repeated ADD gets the same address");
                return;
            }
            Command::Refuse {
                ticket, refusal, ..
            } => {
                assert!(self.asked.remove(ticket), "{ticket:?} answered twice");
                self.refused.insert(*ticket, refusal.clone());
                return;
            }
            Command::CreateEni { op, .. } => (*op, Action::Create),
            Command::AttachEni { op, .. } => (*op, Action::Attach),
            Command::DeleteOnTermination { op, .. } => (*op, Action::Modify),
            Command::SetGroups { op, .. } => (*op, Action::Regroup),
            Command::ConfigureEni(what) => (what.op, Action::Configure),
            Command::Assign { op, .. } => (*op, Action::Assign),
            Command::Unassign { op, .. } => (*op, Action::Unassign),
            Command::DeconfigureEni { op, .. } => (*op, Action::Deconfigure),
            Command::DetachEni { op, .. } => (*op, Action::Detach),
            Command::DeleteEni { op, .. } => (*op, Action::Delete),
            Command::Describe { op } => (*op, Action::Describe),
            Command::DescribeSubnets { op, .. } => (*op, Action::Subnets),
        };
        let fault = self
            .faults
            .get_mut(&action)
            .filter(|faults| !faults.is_empty())
            .map(|faults| faults.remove(0));
        let failure = |class| Err(Failure::new(class, "as told"));
        match fault {
            Some(Fault::Refuse(class)) => self.answer(op, failure(class)),
            Some(Fault::LoseReply) => {
                drop(self.apply(command));
                self.answer(op, failure(Class::Ambiguous));
            }
            Some(Fault::Silence) => {
                drop(self.apply(command));
            }
            None => {
                let result = self.apply(command);
                let result = result.map_err(|class| Failure::new(class, "EC2 says no"));
                self.answer(op, result);
            }
        }
    }

    fn accept(&mut self, ticket: Ticket, sandbox: &Sandbox, address: IpAddr, known: bool) {
        assert!(self.asked.remove(&ticket), "{ticket:?} answered twice");
        self.granted
            .insert(ticket, (sandbox.clone(), address, known));
    }

    /// Checks I1, I2 and I3.
    fn granted(&mut self, command: &Command, wired: &mut Vec<Sandbox>) {
        let Command::Grant {
            ticket,
            sandbox,
            address,
            eni: id,
            index,
            ..
        } = command
        else {
            return;
        };
        self.accept(*ticket, sandbox, *address, false);
        assert!(
            !self.live.values().any(|other| other == address),
            "{address} has two owners"
        );
        assert!(
            !self.live.contains_key(sandbox),
            "{sandbox:?} has two addresses"
        );
        let eni = self.enis.get(id).expect("granted on an ENI that exists");
        let attached = eni.observed.attached.as_ref();
        assert!(
            attached.is_some() && eni.configured,
            "{id} does not carry traffic"
        );
        assert_eq!(
            *index == EniIndex::PRIMARY,
            attached.is_some_and(|attachment| attachment.device == 0)
        );
        assert!(
            self.owns(id, *address) || self.stolen.contains(address),
            "{address} is not on {id}"
        );
        let rest = self.rested.get(address).map(|at| self.now.since(*at));
        assert!(
            rest.is_none_or(|rest| rest >= self.cooldown),
            "{address} rested {rest:?} only"
        );
        self.live.insert(sandbox.clone(), *address);
        wired.push(sandbox.clone());
    }

    fn owns(&self, id: &EniId, address: IpAddr) -> bool {
        let observed = &self.enis[id].observed;
        observed.addresses.contains(&address)
            || observed.prefixes.iter().any(|net| net.contains(&address))
    }

    fn check(&self) {
        self.planner.pool.check();
        let attached = self
            .enis
            .values()
            .filter(|eni| eni.observed.attached.is_some())
            .count();
        assert!(attached <= self.max_enis);
    }

    /// Commands to EC2 since a position in the log.
    pub fn calls_since(&self, from: usize) -> Vec<&Command> {
        let local = |c: &&Command| {
            !matches!(
                c,
                Command::Grant { .. }
                    | Command::Refuse { .. }
                    | Command::ConfigureEni(_)
                    | Command::DeconfigureEni { .. }
            )
        };
        self.log[from..].iter().filter(local).collect()
    }
}

/// Where the planner creates ENIs.
fn placement(class: Result<EniClass, NoClass>) -> Placement {
    Placement {
        class,
        ..Placement::like_primary("subnet-1".into())
    }
}
