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

use figure::Report;
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
    for (name, part) in PARTS {
        if chosen.is_empty() || chosen.iter().any(|chosen| chosen == name) {
            errln!("== {name}");
            part(&mut bench)?;
        }
    }
    // Saved first, because the measurements took minutes and standard output may be closed.
    bench.report.save(&bench.out.join("report.json"))?;
    out!("{}", bench.report)?;
    let (budgets, kept) = bench.report.kept();
    outln!("\n{kept} of {budgets} budgets kept.")
}
