//! One large node that fills up: the duration of an ADD, and the latency and rate of packets between two pods, from few
//! pods to as many as the instance supports. Also the daemon's memory.

use std::{fs, io, thread, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod, count},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    Bench,
    figure::Figure,
    floor::Floors,
    packets::{self, Seen},
    plot,
    sample::Sample,
    upstream,
};

/// 15 ENIs of 49 pod addresses; with two pods of the host's network, 737 pods.
const INSTANCE: &str = "m5.24xlarge";
const FULL: usize = 735;
/// Numbers of pods at which packets are measured; host-network pods count, as in the budget's "737".
const PACKETS: [u16; 4] = [2, 58, 234, 735];
/// Numbers of pods at which an ADD is reported, each from this many ADDs around it.
const ADDS: [usize; 4] = [10, 100, 250, 735];
const AROUND: usize = 20;
/// As recommended in the README; otherwise the C library keeps memory for each of the daemon's threads.
pub const ONE_ARENA: (&str, &str) = ("MALLOC_ARENA_MAX", "1");
/// Longer than the interval of the daemon's check of everything that it manages.
const A_LOOK: Duration = Duration::from_secs(65);
/// The maximum resident memory with a full node.
const MEMORY: f64 = 24.0;

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let all = FULL.to_string();
    let node = lab.node(
        INSTANCE,
        &[
            ("WARM_IP_TARGET", "0"),
            ("MINIMUM_IP_TARGET", &all),
            ONE_ARENA,
        ],
    )?;
    let empty = resident(&node)?;
    warm(&node)?;
    let mut filling = Filling::default();
    for pods in PACKETS {
        filling.fill(&node, usize::from(pods), &bench.floor)?;
        filling.look(pods)?;
    }
    // This is when it needs the most memory.
    thread::sleep(A_LOOK);
    let full = resident(&node)?;
    plot::draw(&bench.out.join("latency.svg"), &filling.adds, &filling.seen)?;
    filling.report(bench);
    let report = &mut bench.report;
    report.add(Figure::plain("ipamd resident, no pods", empty, "MiB"));
    report.add(Figure::plain(
        "ipamd resident, 250 pods",
        filling.at_250,
        "MiB",
    ));
    report.add(Figure::plain("ipamd resident, 737 pods", full, "MiB").within(MEMORY));
    Ok(())
}

fn warm(node: &Node) -> io::Result<()> {
    let free = || count(node, "free").is_ok_and(|free| free >= FULL);
    if eventually(Duration::from_secs(120), free) {
        Ok(())
    } else {
        Err(io::Error::other(format!(
            "the pool does not fill:\n{}",
            node.log()
        )))
    }
}

/// MiB, from `VmRSS`.
pub fn resident(node: &Node) -> io::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map(|kib| kib / 1024.0)
        .ok_or_else(|| io::Error::other("no VmRSS"))
}

/// Packets at one number of pods, on this node and on a node configured like the AWS VPC CNI's.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub pods: u16,
    pub here: Seen,
    pub there: Seen,
}

#[derive(Debug, Default)]
struct Filling {
    pods: Vec<Pod>,
    /// Milliseconds, in order.
    adds: Vec<f64>,
    floors: Floors,
    seen: Vec<Look>,
    at_250: f64,
}

impl Filling {
    fn fill(&mut self, node: &Node, to: usize, floor: &crate::floor::Floor) -> io::Result<()> {
        // Not more often: the floor's namespaces exist until the end, and would soon be as many as the pods'.
        self.floors.gather(floor, AROUND)?;
        while self.pods.len() < to {
            let pod = node.add_pod(&format!("d{}", self.pods.len()))?;
            self.adds.push(crate::sample::millis(pod.added.took));
            self.pods.push(pod);
            if self.pods.len() == 250 {
                self.at_250 = resident(node)?;
            }
        }
        Ok(())
    }

    /// The first pod and the last one: the kernel's tables between them are as long as possible.
    fn look(&mut self, pods: u16) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.pods.first(), self.pods.last()) else {
            return Err(io::Error::other("two pods are needed"));
        };
        let here = packets::between(&first.netns, &last.netns, last.address())?;
        let there = upstream::measure(pods)?;
        self.seen.push(Look { pods, here, there });
        Ok(())
    }

    fn around(&self, pods: usize) -> f64 {
        let end = pods.clamp(AROUND / 2, self.adds.len() - AROUND / 2) + AROUND / 2;
        let mut sample = Sample::default();
        sample.extend(
            self.adds
                .iter()
                .copied()
                .take(end)
                .skip(end.saturating_sub(AROUND)),
        );
        sample.median()
    }

    fn report(&self, bench: &mut Bench) {
        let first = self.around(ADDS[0]);
        for pods in ADDS {
            let name = format!(
                "ADD p50 with {} pods present",
                if pods == ADDS[0] { 1 } else { pods }
            );
            let figure = Figure::plain(name, self.around(pods), "ms");
            bench.report.add(if pods == ADDS[0] {
                figure.over(self.floors.add())
            } else {
                figure.over(first)
            });
        }
        let Some(least) = self.seen.first().map(|look| look.here) else {
            return;
        };
        for Look { pods, here, there } in &self.seen {
            let report = &mut bench.report;
            let figure = Figure::plain(
                format!("pod-to-pod round trip, {pods} pods"),
                here.round_trip,
                "µs",
            )
            .over(least.round_trip);
            report.add(if usize::from(*pods) == FULL {
                figure.within(1.2)
            } else {
                figure
            });
            report.add(
                Figure::plain(
                    format!("… round trip with upstream's rules, {pods} pods"),
                    there.round_trip,
                    "µs",
                )
                .over(here.round_trip),
            );
            report.add(
                Figure::plain(
                    format!("small datagrams, {pods} pods"),
                    here.rate / 1e3,
                    "k/s",
                )
                .over(least.rate / 1e3),
            );
            report.add(
                Figure::plain(
                    format!("… datagrams with upstream's rules, {pods} pods"),
                    there.rate / 1e3,
                    "k/s",
                )
                .over(here.rate / 1e3),
            );
        }
    }
}
