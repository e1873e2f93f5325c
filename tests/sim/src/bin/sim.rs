//! `make sim`: runs many seeds, or one of them with a complete log.
//!
//! `sim SEEDS [FROM]` runs this many on all cores; `sim --seed N` runs one and prints its whole trace; `sim --crash`
//! kills a daemon at every crash point, alone and combined with other faults.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode};

use sim::{campaign, crash, run};
use stdout::{errln, out, outln};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let lived = match (arguments.first().map(String::as_str), numbers.as_slice()) {
        (Some("--seed"), [seed]) => one(*seed),
        (Some("--crash"), _) => crash::enumerate_all(|line| out!("{line}")),
        (Some(_), [seeds]) => many(*seeds, 0),
        (Some(_), [seeds, from]) => many(*seeds, *from),
        _ => {
            errln!("usage: sim SEEDS [FROM] | sim --seed SEED | sim --crash");
            return ExitCode::from(2);
        }
    };
    stdout::ended("sim", lived.map(status))
}

fn status(sound: bool) -> ExitCode {
    if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(seed: u64) -> io::Result<bool> {
    let outcome = run::live(seed, run::TraceDetail::All);
    for line in &outcome.lines {
        outln!("{line}")?;
    }
    if let Some(failure) = &outcome.failure {
        outln!("{failure}")?;
    }
    Ok(outcome.failure.is_none())
}

fn many(seeds: u64, from: u64) -> io::Result<bool> {
    let report = campaign::run_on_all_cores(from..from + seeds, |line| outln!("{line}"))?;
    outln!("{report}")?;
    Ok(report.failures.is_empty())
}
