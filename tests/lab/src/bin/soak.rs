//! `make soak`: `soak MINUTES [SEED]` runs for this long, prints what happened, and fails on any violation.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode, time::Duration};

use lab::{
    sandbox,
    soak::{self, Settings},
};
use stdout::{errln, outln};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let (minutes, seed) = match numbers.as_slice() {
        [minutes] => (*minutes, 1),
        [minutes, seed] => (*minutes, *seed),
        _ => {
            errln!("usage: soak MINUTES [SEED]");
            return ExitCode::from(2);
        }
    };
    let settings = Settings {
        churn: Duration::from_secs(60 * minutes),
        seed,
    };
    stdout::ended("soak", live(settings))
}

fn live(settings: Settings) -> io::Result<ExitCode> {
    let minutes = settings.churn.as_secs() / 60;
    outln!("soak: {minutes} minutes, seed {}", settings.seed)?;
    sandbox::enter().map_err(io::Error::other)?;
    let report = soak::run(settings, |line| outln!("── {line}"))?;
    outln!("\n{report}")?;
    Ok(if report.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
