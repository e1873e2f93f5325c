//! One large node that fills up: how long an ADD takes and what packets between two pods see, with few pods and with as
//! many as the instance can hold, each beside the floor at the same density. And the daemon's memory on the way.

use std::{collections::BTreeSet, fs, io, thread, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod, count},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    Bench,
    figure::{Figure, Report},
    floor::{Floor, Floors},
    packets::{self, AtDensity, Pair},
    plot,
    sample::Sample,
    upstream,
};

/// 15 ENIs of 49 pod addresses; with two pods of the host's network, 737 pods.
const INSTANCE: &str = "m5.24xlarge";
const FULL: usize = 735;
/// Numbers of pods at which packets are measured; host-network pods count, as in the budget's "737".
const PACKETS: [u16; 5] = [2, 4, 58, 140, 735];
/// Numbers of pods at which an ADD and its floor are reported, beside those without pods. An ADD is the median of this many
/// around it.
const FLOORS: [usize; 3] = [100, 250, FULL];
const AROUND: usize = 20;
/// Runs of the floor's steps at a density. Each wires 50 pods.
const FLOOR_RUNS: usize = 3;
/// How long the kernel may take to remove the namespaces of those runs.
const REMOVAL: Duration = Duration::from_secs(3);
/// Longer than the interval in which the daemon checks everything that it manages, and in which it gives back memory.
pub const A_LOOK: Duration = Duration::from_secs(65);
/// The maximum resident memory with a full node.
const MEMORY: f64 = 20.0;

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::default())?;
    let all = FULL.to_string();
    let node = lab.node(
        INSTANCE,
        &[("WARM_IP_TARGET", "0"), ("MINIMUM_IP_TARGET", &all)],
    )?;
    let empty = resident(&node)?;
    warm(&node)?;
    let mut filling = Filling {
        floors: vec![(1, floor_beside(0, &bench.floor)?)],
        ..Filling::default()
    };
    let stops: BTreeSet<usize> = FLOORS.into_iter().chain(PACKETS.map(usize::from)).collect();
    for pods in stops {
        filling.fill(&node, pods)?;
        if FLOORS.contains(&pods) {
            filling
                .floors
                .push((pods, floor_beside(pods, &bench.floor)?));
        }
        if let Some(pods) = PACKETS.into_iter().find(|at| usize::from(*at) == pods) {
            filling.measure_packets(pods)?;
        }
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

/// The floor on this machine while `pods` pods stand. Its own namespaces are removed again: what the kernel does for a
/// link grows with the number of namespaces.
fn floor_beside(pods: usize, floor: &Floor) -> io::Result<f64> {
    let mut floors = Floors::default();
    for _ in 0..FLOOR_RUNS {
        floors.gather(floor, AROUND)?;
        floors.release();
        thread::sleep(REMOVAL);
    }
    stdout::errln!("floor beside {pods} pods: {:.2} ms", floors.add());
    Ok(floors.add())
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

#[derive(Debug, Default)]
struct Filling {
    pods: Vec<Pod>,
    /// Milliseconds, in order.
    adds: Vec<f64>,
    /// Of an ADD with so many pods present, in milliseconds. The first one is without pods.
    floors: Vec<(usize, f64)>,
    seen: Vec<AtDensity>,
    at_250: f64,
}

impl Filling {
    fn fill(&mut self, node: &Node, to: usize) -> io::Result<()> {
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
    fn measure_packets(&mut self, pods: u16) -> io::Result<()> {
        let (Some(first), Some(last)) = (self.pods.first(), self.pods.last()) else {
            return Err(io::Error::other("two pods are needed"));
        };
        let here = Pair::open(&first.netns, &last.netns, last.address())?;
        let (upstream, bare) = (upstream::Node::new(pods)?, upstream::Node::bare()?);
        let pairs = [here, upstream.pair()?, bare.pair()?];
        let [here, there, bare] = packets::in_turn(pairs)?;
        self.seen.push(AtDensity {
            pods,
            here,
            there,
            bare,
        });
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

    fn report_adds(&self, report: &mut Report) {
        let few = self.floors.first().map_or(f64::NAN, |(_, floor)| *floor);
        let first = self.around(1);
        for (pods, floor) in &self.floors {
            let name = format!("floor of an ADD with {pods} pods present");
            report.add(Figure::plain(name, *floor, "ms").over(few));
            let name = format!("ADD p50 with {pods} pods present");
            report.add(Figure::plain(name, self.around(*pods), "ms").over(*floor));
        }
        let full = self.floors.last().map_or(f64::NAN, |(_, floor)| *floor);
        let name = format!("ADD p50 with {FULL} pods present beside 1, and its floor's");
        let grown = Figure::plain(name, self.around(FULL) / first, "×");
        report.add(grown.over(full / few).within(1.1));
    }

    fn report(&self, bench: &mut Bench) {
        self.report_adds(&mut bench.report);
        let Some(least) = self.seen.first().map(|point| point.here) else {
            return;
        };
        for AtDensity {
            pods,
            here,
            there,
            bare,
        } in &self.seen
        {
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
                    format!("… datagrams without any rules, {pods} pods"),
                    bare.rate / 1e3,
                    "k/s",
                )
                .over(here.rate / 1e3),
            );
            let figure = Figure::plain(
                format!("… datagrams with upstream's rules, {pods} pods"),
                there.rate / 1e3,
                "k/s",
            );
            report.add(figure.over(here.rate / 1e3).within(match pods {
                ..=3 => 1.0,
                4..=57 => 1.0 / 1.2,
                58..=139 => 1.0,
                140.. => 1.0 / 1.5,
            }));
        }
    }
}
