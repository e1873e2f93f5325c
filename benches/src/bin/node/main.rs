//! `make bench`: measures the cost of a node's network, each figure with its floor from the same run and machine.
//!
//! Prints the table, and writes `report.json` and `latency.svg` into the directory of the first argument. Further
//! arguments select parts. Everything runs in namespaces that end with this process; daemon and plugin are the released
//! binaries.

#![forbid(unsafe_code)]

mod caller;
mod calls;
mod concurrent;
mod density;
mod figure;
mod floor;
mod ipv6;
mod memory;
mod packets;
mod plot;
mod restart;
mod sample;
mod storm;
mod upstream;
mod verbs;

use std::{io, path::PathBuf, process::ExitCode};

use figure::{Report, runs};
use floor::Floor;
use lab::sandbox;
use stdout::{errln, out, outln};

/// The parameters of every part.
#[derive(Debug)]
pub struct Bench {
    pub floor: Floor,
    /// The directory of the report and the plot.
    pub out: PathBuf,
    pub report: Report,
}

/// How often everything is measured. The report has the medians.
const RUNS: &str = "RUNS";

type Part = (&'static str, fn(&mut Bench) -> io::Result<()>);

const PARTS: [Part; 7] = [
    ("verbs", verbs::measure),
    ("storm", storm::measure),
    ("density", density::measure),
    ("ipv6", ipv6::measure),
    ("restart", restart::measure),
    ("memory", memory::measure),
    ("calls", calls::measure),
];

fn main() -> ExitCode {
    let measured = sandbox::enter()
        .map_err(io::Error::other)
        .and_then(|()| run());
    stdout::ended("bench", measured.map(|()| ExitCode::SUCCESS))
}

/// How often to measure everything.
fn runs_wanted() -> io::Result<usize> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the bench is configured by make, through the environment"
    )]
    let count = std::env::var(RUNS);
    let Ok(count) = count else {
        return Ok(1);
    };
    let wrong = || io::Error::other(format!("{RUNS}={count} is not a number of runs"));
    count.parse().map_err(|_| wrong())
}

fn run() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let out = arguments
        .next()
        .map(PathBuf::from)
        .ok_or_else(|| io::Error::other("the directory of the report is missing"))?;
    let chosen: Vec<String> = arguments.collect();
    std::fs::create_dir_all(&out)?;
    let mut bench = Bench {
        floor: Floor::build(&out)?,
        out,
        report: Report::default(),
    };
    let count = runs_wanted()?;
    let mut reports = Vec::new();
    for run in 1..=count {
        for (name, part) in PARTS {
            if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
                errln!("== {name}, run {run}");
                part(&mut bench)?;
            }
        }
        reports.push(std::mem::take(&mut bench.report));
    }
    let report = runs::combine(&reports);
    let path = bench.out.join("report.json");
    let moved = runs::moved(&path, &report);
    // Saved first, because the measurements took minutes and standard output may be closed.
    report.save(&path)?;
    out!("{report}")?;
    let (budgets, kept) = report.kept();
    outln!("\n{kept} of {budgets} budgets kept.")?;
    if !moved.is_empty() {
        outln!("\nMoved since the last report:\n- {}", moved.join("\n- "))?;
    }
    Ok(())
}
