//! Microseconds per planner event on a full node: an m5.24xlarge with 15 ENIs and 735 pod addresses (`max-pods` 737).
//!
//! Prints one table. Reads the clock itself: the planner gets its time as an argument.

use std::{
    io,
    net::Ipv4Addr,
    process::ExitCode,
    time::{Duration, Instant},
};

use planner::{
    Answer, Command, Config, Event, Mac, Mono, Observed, Planner, Pod, Sandbox, Ticket,
    event::EniAttachment, limits,
};
use stdout::outln;

const INSTANCE: &str = "m5.24xlarge";
const ROUNDS: usize = 9;
const CYCLES: u32 = 5_000;
/// One pod is added and one deleted each second: with 30 s of cooldown, this many addresses are always in cooldown.
const RESTING: u32 = 30;
const SPARE: u32 = 5;

struct Node {
    planner: Planner,
    now: Mono,
    next: u64,
    granted: u32,
}

impl Node {
    /// All ENIs attached and up, all addresses free.
    fn new(config: Config) -> Self {
        let instance = limits::lookup(INSTANCE)
            .expect("in the compiled-in table")
            .clone();
        let prefixes = instance.prefix_mode(&config);
        let list = (0..instance.max_enis)
            .map(|device| observed(device, instance.slots_per_eni(), prefixes))
            .collect();
        let planner = Planner::new(
            config,
            instance,
            planner::Placement::like_primary("subnet-1".into()),
            1,
        );
        let now = Mono::from_epoch(Duration::from_secs(1));
        let mut node = Self {
            planner,
            now,
            next: 0,
            granted: 0,
        };
        node.send(Event::Inventory(list));
        node
    }

    /// Sends an event and answers the host's commands immediately.
    fn send(&mut self, event: Event) {
        for command in self.planner.on(event, self.now) {
            match command {
                Command::ConfigureEni(what) => {
                    self.send(Event::Answered {
                        op: what.op,
                        result: Ok(Answer::Done),
                    });
                }
                Command::Grant { .. } => self.granted += 1,
                other => panic!("a full node without pending work issued {other:?}"),
            }
        }
    }

    fn sandbox(n: u64) -> Sandbox {
        Sandbox {
            network: "hawser".into(),
            container_id: format!("{n:064x}"),
            ifname: "eth0".into(),
        }
    }

    fn add(&mut self) {
        self.next += 1;
        let deadline = self.now + Duration::from_secs(60);
        let (ticket, sandbox) = (Ticket(self.next), Self::sandbox(self.next));
        self.send(Event::Add {
            ticket,
            sandbox,
            pod: Pod::default(),
            deadline,
        });
    }

    /// ADD, its wiring, and the DEL of the oldest pod, with the duration of each.
    fn cycle(&mut self, live: u32) -> [Duration; 3] {
        let add = timed(|| self.add());
        let newest = Self::sandbox(self.next);
        let wired = timed(|| self.send(Event::Wired { sandbox: newest }));
        let oldest = Self::sandbox(self.next - u64::from(live));
        let left = timed(|| self.send(Event::Left { sandbox: oldest }));
        self.now = self.now + Duration::from_secs(1);
        [add, wired, left]
    }
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn observed(device: u16, slots: u16, prefixes: bool) -> Observed {
    let base = u32::from(Ipv4Addr::new(10, 0, 0, 0)) + u32::from(device) * 4096;
    let blocks = 1..=u32::from(slots);
    let prefix = |n: u32| {
        format!("{}/28", Ipv4Addr::from(base + n * 16))
            .parse()
            .expect("a /28")
    };
    Observed {
        eni: format!("eni-{device:017x}").as_str().into(),
        mac: Mac::default(),
        subnet: "subnet-1".into(),
        subnet_cidr: Some("10.0.0.0/16".parse().expect("a network")),
        security_groups: Vec::new(),
        primary: Ipv4Addr::from(base),
        addresses: blocks
            .clone()
            .filter(|_| !prefixes)
            .map(|n| Ipv4Addr::from(base + n).into())
            .collect(),
        prefixes: blocks.filter(|_| prefixes).map(prefix).collect(),
        attached: Some(EniAttachment {
            id: format!("eni-attach-{device:017x}").as_str().into(),
            card: 0,
            device,
            settled: true,
        }),
        managed: true,
        tagged_ours: true,
    }
}

/// Mean microseconds per event of each kind in one round.
fn round(node: &mut Node, live: u32) -> [f64; 3] {
    let mut sums = [Duration::ZERO; 3];
    for _ in 0..CYCLES {
        for (sum, took) in sums.iter_mut().zip(node.cycle(live)) {
            *sum += took;
        }
    }
    sums.map(|sum| sum.as_secs_f64() * 1e6 / f64::from(CYCLES))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn report(name: &str, config: Config) -> io::Result<()> {
    let mut node = Node::new(config);
    let live = 735 - RESTING - SPARE;
    for _ in 0..live {
        node.add();
        let sandbox = Node::sandbox(node.next);
        node.send(Event::Wired { sandbox });
    }
    assert_eq!(node.granted, live, "every pod has its address");
    let rounds: Vec<[f64; 3]> = (0..ROUNDS).map(|_| round(&mut node, live)).collect();
    let column = |n: usize| median(rounds.iter().map(|round| round[n]).collect());
    outln!(
        "{name:<28} {:>10.2} {:>10.2} {:>10.2}",
        column(0),
        column(1),
        column(2)
    )
}

fn main() -> ExitCode {
    stdout::ended("planner", print().map(|()| ExitCode::SUCCESS))
}

fn print() -> io::Result<()> {
    outln!(
        "{INSTANCE}, {} pods live, {RESTING} addresses in cooldown; median of {ROUNDS} rounds",
        735 - RESTING - SPARE
    )?;
    outln!(
        "{:<28} {:>10} {:>10} {:>10}",
        "µs per event",
        "Add",
        "Wired",
        "Left"
    )?;
    report("single addresses", Config::upstream())?;
    report(
        "prefixes (11 760 addresses)",
        Config {
            prefix_delegation: true,
            minimum_ip_target: Some(11_760),
            ..Config::upstream()
        },
    )
}
