//! `make sim`: lives many seeds, or one of them word by word.
//!
//! `sim SEEDS [FROM]` lives that many, on all cores; `sim --seed N` lives one and prints its whole trace; `sim --crash`
//! kills a daemon at every crash point, alone and beside other faults.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let numbers: Vec<u64> = arguments
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    match (arguments.first().map(String::as_str), numbers.as_slice()) {
        (Some("--seed"), [seed]) => one(*seed),
        (Some("--crash"), _) => crash(),
        (Some(_), [seeds]) => many(*seeds, 0),
        (Some(_), [seeds, from]) => many(*seeds, *from),
        _ => {
            eprintln!("usage: sim SEEDS [FROM] | sim --seed SEED | sim --crash");
            ExitCode::from(2)
        }
    }
}

fn one(seed: u64) -> ExitCode {
    let outcome = e2e::simulation::live(seed, e2e::simulation::Words::All);
    for line in &outcome.lines {
        println!("{line}");
    }
    match outcome.failure {
        Some(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    }
}

fn crash() -> ExitCode {
    if e2e::simulation::crash::enumerate_all(|line| print!("{line}")) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn many(seeds: u64, from: u64) -> ExitCode {
    let report =
        e2e::simulation::campaign::run_on_all_cores(from..from + seeds, |line| println!("{line}"));
    println!("{report}");
    if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
