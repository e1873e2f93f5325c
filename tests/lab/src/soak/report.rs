//! The results of the soak, for humans, and the verdict.

use std::{collections::BTreeMap, fmt, time::Duration};

use vpc_sim::Outcome;

use super::{
    memory,
    shared_state::{Sample, SharedState, Site, Tally},
};
use crate::Lab;

/// How much a daemon may grow and count as flat: allocators round, and pools differ in size over time.
const FLAT: i64 = 1024;
/// Descriptors that vary with connections.
const SPARE_DESCRIPTORS: usize = 8;

/// What happened, and the violations.
#[derive(Debug)]
pub struct Report {
    pub tally: Tally,
    pub churned: Duration,
    /// From the last DEL to a node at rest.
    pub settled: Duration,
    pub violations: Vec<String>,
    /// EC2 calls by their result.
    calls: BTreeMap<String, u64>,
    /// The peak memory of a daemon, in KiB: resident, and its private part.
    peak: (u64, u64),
    /// The samples of the daemon that ran longest.
    life: Vec<Sample>,
    /// The number of descriptors of each daemon early in its last process, and at the end.
    descriptors: Vec<(usize, usize)>,
}

impl Report {
    pub(super) fn new(
        lab: &Lab,
        sites: &[Site],
        shared: SharedState,
        churned: Duration,
        settled: Duration,
    ) -> Self {
        let samples = shared.samples();
        let peak = |of: fn(&Sample) -> u64| samples.iter().map(of).max().unwrap_or(0);
        let mut report = Self {
            tally: shared.tally(),
            churned,
            settled,
            violations: shared.violations(),
            calls: calls(lab),
            peak: (peak(|s| s.resident), peak(|s| s.own)),
            life: memory::longest_life(&samples),
            descriptors: Vec::new(),
        };
        report.judge_memory();
        for site in sites {
            report.judge_descriptors(site, &samples);
        }
        report
    }

    fn judge_memory(&mut self) {
        let grown = memory::growth(&self.life);
        if grown > FLAT {
            self.violations
                .push(format!("the longest-running daemon grew by {grown} KiB"));
        }
    }

    fn judge_descriptors(&mut self, site: &Site, samples: &[Sample]) {
        match memory::measure(site, self.churned) {
            Ok(end) => {
                let life = samples.iter().filter(|sample| sample.pid == end.pid);
                let early = life.map(|sample| sample.descriptors).min();
                let early = early.unwrap_or(end.descriptors);
                self.descriptors.push((early, end.descriptors));
                if end.descriptors > early + SPARE_DESCRIPTORS {
                    self.violations.push(format!(
                        "node {}: {} descriptors at the end, {early} at the start",
                        site.number, end.descriptors
                    ));
                }
            }
            Err(error) => self.violations.push(format!(
                "node {}: no daemon at the end: {error}",
                site.number
            )),
        }
    }
}

fn calls(lab: &Lab) -> BTreeMap<String, u64> {
    let mut calls = BTreeMap::new();
    for call in lab.sim.calls() {
        let ended = match call.outcome {
            Outcome::Answered => "answered".to_owned(),
            Outcome::Refused(code) => code,
            Outcome::ReplyLost => "reply lost".to_owned(),
            Outcome::Hung => "never answered".to_owned(),
        };
        *calls.entry(ended).or_insert(0) += 1;
    }
    calls
}

fn mebibytes(kibibytes: u64) -> f64 {
    f64::from(u32::try_from(kibibytes).unwrap_or(u32::MAX)) / 1024.0
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let t = &self.tally;
        let refused: u64 = t.refused.values().sum();
        writeln!(
            f,
            "churn       {} s, settled {} s after the last pod",
            self.churned.as_secs(),
            self.settled.as_secs()
        )?;
        writeln!(
            f,
            "ADDs        {} answered, {refused} refused, {} of them sent twice at the same time, {} more killed; slowest {:.1} s",
            t.adds,
            t.repeated_adds,
            t.killed_adds,
            t.slowest_add.as_secs_f64()
        )?;
        for (reason, times) in &t.refused {
            writeln!(f, "            {times:>6} × {reason}")?;
        }
        writeln!(
            f,
            "DELs        {}, {} of them repeated, {} for unknown sandboxes; {} pods ended without a DEL; slowest {:.1} s",
            t.dels,
            t.repeated_dels,
            t.unknown_dels,
            t.ended_without_del,
            t.slowest_del.as_secs_f64()
        )?;
        writeln!(
            f,
            "restarts    {} after kill -9, {} after SIGTERM",
            t.kills, t.stops
        )?;
        writeln!(
            f,
            "faults      {} windows: {}",
            t.faults.values().sum::<u64>(),
            listed(&t.faults)
        )?;
        writeln!(f, "EC2 calls   {}", listed(&self.calls))?;
        writeln!(
            f,
            "packets     {} between live pods, {} lost",
            t.packets, t.lost
        )?;
        self.show_memory(f)?;
        writeln!(f, "violations  {}", self.violations.len())?;
        for line in self.violations.iter().take(20) {
            writeln!(f, "            {line}")?;
        }
        Ok(())
    }
}

impl Report {
    fn show_memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (resident, own) = self.peak;
        let life = self.life.last().zip(self.life.first());
        let lasted = life.map_or(0, |(last, first)| (last.at - first.at).as_secs());
        writeln!(
            f,
            "memory      peak {:.1} MiB resident, {:.1} MiB of it not mapped from files",
            mebibytes(resident),
            mebibytes(own)
        )?;
        writeln!(
            f,
            "            change in the longest-running daemon ({lasted} s): {:+} KiB",
            memory::growth(&self.life)
        )?;
        let pairs = self
            .descriptors
            .iter()
            .map(|(early, end)| format!("{early} → {end}"));
        writeln!(f, "descriptors {}", pairs.collect::<Vec<_>>().join(", "))
    }
}

fn listed<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let each = counts.iter().map(|(what, times)| format!("{times} {what}"));
    each.collect::<Vec<_>>().join(", ")
}
