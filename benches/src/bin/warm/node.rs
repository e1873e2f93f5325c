//! One node under a trace: the planner, a simulated EC2 with delays, and the record of held addresses and waits.
//!
//! Time is virtual, and randomness has a seed, so a run is exactly reproducible. This EC2 never fails; its latencies
//! are those of `ec2-and-faults` §3.5. It knows nothing of the policies.

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use planner::{
    Amount, Answer, Command, Config, EniId, Event, Mac, Mono, Observed, Op, Planner, Pod, Sandbox,
    Ticket, event::EniAttachment, limits, snapshot::Counters,
};

use crate::trace::{Rng, Stay};

/// The result of one run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Secondary addresses and primary addresses of secondary ENIs, minus those of pods; averaged over time.
    pub idle: f64,
    /// The maximum number of held addresses, including pods'.
    pub peak: u32,
    pub calls: Counters,
    /// For every pod, in the order of service.
    pub waits: Vec<Duration>,
    /// Refused pods; each tries again ten seconds later, like the kubelet.
    pub refused: u32,
}

impl Outcome {
    /// All EC2 calls.
    pub const fn total(&self) -> u64 {
        let c = &self.calls;
        c.creates
            + c.attaches
            + c.modifies
            + c.assigns
            + c.unassigns
            + c.detaches
            + c.deletes
            + c.describes
    }

    pub fn waited(&self) -> usize {
        self.waits.iter().filter(|wait| !wait.is_zero()).count()
    }

    /// The wait that this percentage of the pods did not exceed.
    pub fn wait(&self, percent: usize) -> Duration {
        let mut sorted = self.waits.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or_default()
    }
}

enum Due {
    Answer(Op, Answer),
    Comes(u32),
    Leaves(u32),
}

struct Node<'a> {
    planner: Planner,
    now: Mono,
    due: BTreeMap<(Mono, u64), Due>,
    seq: u64,
    rng: Rng,
    pods: &'a [Stay],
    asked: HashMap<Ticket, (u32, Mono)>,
    enis: u32,
    next: u32,
    idle_seconds: f64,
    outcome: Outcome,
}

/// Runs a trace for `time` with a policy. `seed` determines how long EC2 takes for each call.
pub fn run(instance: &str, config: Config, pods: &[Stay], time: Duration, seed: u64) -> Outcome {
    let kind = limits::lookup(instance)
        .expect("a type of the compiled-in table")
        .clone();
    let mut node = Node {
        planner: Planner::new(
            config,
            kind,
            planner::Placement::like_primary("subnet-1".into()),
            1,
        ),
        now: Mono::ZERO,
        due: BTreeMap::new(),
        seq: 0,
        rng: Rng::new(seed),
        pods,
        asked: HashMap::new(),
        enis: 0,
        next: 0,
        idle_seconds: 0.0,
        outcome: Outcome::default(),
    };
    let mut primary = node.eni(Amount::Addresses(0));
    primary.attached = Some(EniAttachment {
        id: "attach-0".into(),
        card: 0,
        device: 0,
        settled: true,
    });
    node.send(Event::Inventory(vec![primary]));
    for (n, pod) in (0_u32..).zip(pods) {
        node.later(pod.comes, Due::Comes(n));
    }
    node.until(Mono::from_epoch(time));
    node.outcome.idle = node.idle_seconds / time.as_secs_f64();
    node.outcome.calls = node.planner.counters();
    node.outcome
}

impl Node<'_> {
    fn later(&mut self, delay: Duration, due: Due) {
        self.seq += 1;
        self.due.insert((self.now + delay, self.seq), due);
    }

    fn until(&mut self, end: Mono) {
        loop {
            let first = self.due.keys().next().copied();
            let tick = self.planner.next_deadline();
            let at = [first.map(|(at, _)| at), tick].into_iter().flatten().min();
            let Some(at) = at.filter(|at| *at < end) else {
                return self.pass(end);
            };
            self.pass(at);
            match first
                .filter(|(due, _)| *due <= at)
                .and_then(|key| self.due.remove(&key))
            {
                Some(due) => self.happen(due),
                None => self.send(Event::Tick),
            }
        }
    }

    /// Recorder what is held from now to then.
    fn pass(&mut self, then: Mono) {
        let totals = self.planner.totals();
        let held = totals.free
            + totals.reserved
            + totals.assigned
            + totals.cooling
            + totals.releasing
            + totals.enis.saturating_sub(1);
        let idle = held - totals.reserved - totals.assigned;
        self.outcome.peak = self.outcome.peak.max(held);
        self.idle_seconds += f64::from(idle) * then.since(self.now).as_secs_f64();
        self.now = then;
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Answer(op, answer) => self.send(Event::Answered {
                op,
                result: Ok(answer),
            }),
            Due::Comes(n) => {
                self.seq += 1;
                let ticket = Ticket(self.seq);
                self.asked.insert(ticket, (n, self.now));
                self.send(Event::Add {
                    ticket,
                    sandbox: sandbox(n),
                    pod: Pod::default(),
                    deadline: self.now + Duration::from_secs(60),
                });
            }
            Due::Leaves(n) => self.send(Event::Left {
                sandbox: sandbox(n),
            }),
        }
    }

    fn send(&mut self, event: Event) {
        for command in self.planner.on(event, self.now) {
            self.take(command);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Grant {
                ticket, sandbox, ..
            }
            | Command::GrantAgain {
                ticket, sandbox, ..
            } => self.granted(ticket, sandbox),
            Command::Refuse { ticket, .. } => {
                self.outcome.refused += 1;
                if let Some((n, _)) = self.asked.remove(&ticket) {
                    self.later(Duration::from_secs(10), Due::Comes(n));
                }
            }
            Command::CreateEni { op, spec, .. } => {
                let answer = Answer::Created(self.eni(spec.amount));
                self.answer(op, 0.4, 1.5, answer);
            }
            Command::AttachEni { op, eni, .. } => {
                let attachment = format!("attach-{eni}").as_str().into();
                let call = self.rng.between(0.3, 1.2);
                let attaching = self.rng.between(1.0, 6.0);
                self.later(
                    call + attaching,
                    Due::Answer(op, Answer::Attached { attachment }),
                );
            }
            Command::Assign { op, amount, .. } => {
                let answer = self.give(amount);
                self.answer(op, 0.2, 0.8, answer);
            }
            Command::ConfigureEni(what) => self.answer(what.op, 0.01, 0.05, Answer::Done),
            Command::DeconfigureEni { op, .. } => self.answer(op, 0.01, 0.05, Answer::Done),
            Command::DeleteOnTermination { op, .. }
            | Command::Unassign { op, .. }
            | Command::DeleteEni { op, .. } => self.answer(op, 0.2, 0.4, Answer::Done),
            Command::DetachEni { op, .. } => self.answer(op, 2.0, 20.0, Answer::Done),
            Command::Describe { .. }
            | Command::DescribeSubnets { .. }
            | Command::SetGroups { .. } => panic!("EC2 never fails here"),
        }
    }

    fn granted(&mut self, ticket: Ticket, sandbox: Sandbox) {
        let (n, since) = self
            .asked
            .remove(&ticket)
            .expect("a request is answered once");
        self.outcome.waits.push(self.now.since(since));
        let index = usize::try_from(n).expect("a trace fits in memory");
        self.later(self.pods[index].stays, Due::Leaves(n));
        self.send(Event::Wired { sandbox });
    }

    fn answer(&mut self, op: Op, least: f64, most: f64, answer: Answer) {
        let delay = self.rng.between(least, most);
        self.later(delay, Due::Answer(op, answer));
    }

    fn eni(&mut self, amount: Amount) -> Observed {
        let Answer::Assigned {
            addresses,
            prefixes,
        } = self.give(amount)
        else {
            unreachable!("the reply of an Assign")
        };
        self.enis += 1;
        Observed {
            eni: EniId(format!("eni-{}", self.enis)),
            mac: Mac::default(),
            subnet: "subnet-1".into(),
            subnet_cidr: Some("10.0.0.0/8".parse().expect("a network")),
            security_groups: Vec::new(),
            primary: self.address(),
            addresses,
            prefixes,
            attached: None,
            managed: true,
            tagged_ours: true,
        }
    }

    fn address(&mut self) -> Ipv4Addr {
        self.next += 1;
        Ipv4Addr::from(0x0a00_0000 + self.next)
    }

    fn give(&mut self, amount: Amount) -> Answer {
        let (mut addresses, mut prefixes) = (Vec::new(), Vec::new());
        match amount {
            Amount::Addresses(n) => addresses.extend((0..n).map(|_| IpAddr::V4(self.address()))),
            Amount::Ipv6Prefixes(_) => unreachable!("the traces are of IPv4 nodes"),
            Amount::Prefixes(n) => {
                for _ in 0..n {
                    self.next = (self.next / 16 + 1) * 16;
                    let net = format!("{}/28", Ipv4Addr::from(0x0a00_0000 + self.next));
                    self.next += 15;
                    prefixes.push(net.parse().expect("a network"));
                }
            }
        }
        Answer::Assigned {
            addresses,
            prefixes,
        }
    }
}

fn sandbox(n: u32) -> Sandbox {
    Sandbox {
        network: "hawser".into(),
        container_id: format!("c{n}"),
        ifname: "eth0".into(),
    }
}
