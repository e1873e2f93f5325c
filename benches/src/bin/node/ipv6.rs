//! An IPv6 node compared with an IPv4 node in the same run: the duration of an ADD, and the latency between two pods,
//! alone and on a full node of the largest type.

use std::{io, time::Duration};

use lab::{
    Lab,
    node::{Node, Pod, count},
    wait::eventually,
};
use vpc_sim::SimConfig;

use crate::{
    Bench,
    figure::Figure,
    packets::{self, Pair},
    sample::Sample,
};

/// The same as in `density`.
const INSTANCE: &str = "m5.24xlarge";
const FULL: usize = 735;
/// The number of compared ADDs, alternating between the nodes.
const ADDS: usize = 100;
const AROUND: usize = 20;
const WARM: &str = "110";

const FOUR: [(&str, &str); 2] = [("WARM_IP_TARGET", WARM), ("IP_COOLDOWN_PERIOD", "1")];
const SIX: [(&str, &str); 4] = [
    ("ENABLE_IPv4", "false"),
    ("ENABLE_IPv6", "true"),
    ("ENABLE_PREFIX_DELEGATION", "true"),
    ("IP_COOLDOWN_PERIOD", "1"),
];

/// See the module.
///
/// # Errors
/// If the lab fails.
pub fn measure(bench: &mut Bench) -> io::Result<()> {
    let lab = Lab::start(SimConfig::dual_stack())?;
    let mut four = Filling::on(lab.node(INSTANCE, &FOUR)?);
    let mut six = Filling::on(lab.node(INSTANCE, &SIX)?);
    warm(&four.node)?;
    for filling in [&mut four, &mut six] {
        filling.fill(2)?;
    }
    let (near, alone) = (four.round_trip()?, six.round_trip()?);
    for pods in 3..=ADDS {
        four.fill(pods)?;
        six.fill(pods)?;
    }
    let (add_four, add_six) = (median(&four.adds), median(&six.adds));
    six.fill(FULL)?;
    let crowded = median(&six.adds[FULL - AROUND..]);
    let among = six.round_trip()?;

    let report = &mut bench.report;
    let figure = Figure::plain("IPv6: ADD, one at a time, p50", add_six, "ms");
    report.add(figure.over(add_four));
    let name = format!("IPv6: ADD p50 with {FULL} pods present");
    report.add(Figure::plain(name, crowded, "ms").over(add_six));
    let name = "IPv6: pod-to-pod round trip, 2 pods";
    report.add(Figure::plain(name, alone, "µs").over(near));
    let name = format!("IPv6: pod-to-pod round trip, {FULL} pods");
    report.add(Figure::plain(name, among, "µs").over(alone).within(1.2));
    Ok(())
}

fn warm(node: &Node) -> io::Result<()> {
    let free = || count(node, "free").is_ok_and(|free| free > ADDS);
    if eventually(Duration::from_secs(120), free) {
        Ok(())
    } else {
        let log = node.log();
        Err(io::Error::other(format!("the pool does not fill:\n{log}")))
    }
}

fn median(millis: &[f64]) -> f64 {
    let mut sample = Sample::default();
    sample.extend(millis.iter().copied());
    sample.median()
}

/// A node that is being filled with pods.
#[derive(Debug)]
struct Filling {
    node: Node,
    pods: Vec<Pod>,
    /// Milliseconds, in order.
    adds: Vec<f64>,
}

impl Filling {
    const fn on(node: Node) -> Self {
        Self {
            node,
            pods: Vec::new(),
            adds: Vec::new(),
        }
    }

    fn fill(&mut self, to: usize) -> io::Result<()> {
        while self.pods.len() < to {
            let pod = self.node.add_pod(&format!("d{}", self.pods.len()))?;
            self.adds.push(crate::sample::millis(pod.added.took));
            self.pods.push(pod);
        }
        Ok(())
    }

    /// Between the first pod and the last one, in microseconds.
    fn round_trip(&self) -> io::Result<f64> {
        let (Some(first), Some(last)) = (self.pods.first(), self.pods.last()) else {
            return Err(io::Error::other("two pods are needed"));
        };
        let pair = Pair::open(&first.netns, &last.netns, last.address())?;
        let [seen] = packets::in_turn([pair])?;
        Ok(seen.round_trip)
    }
}
