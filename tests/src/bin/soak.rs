//! `make soak`: `soak MINUTES [SEED]` lives so long, prints what happened, and fails if anything happened that must not.

#![forbid(unsafe_code)]

use std::{io, process::ExitCode, time::Duration};

use e2e::{
    sandbox,
    soak::{self, Settings},
};

fn main() -> ExitCode {
    let numbers: Vec<u64> = std::env::args()
        .skip(1)
        .filter_map(|text| text.parse().ok())
        .collect();
    let (minutes, seed) = match numbers.as_slice() {
        [minutes] => (*minutes, 1),
        [minutes, seed] => (*minutes, *seed),
        _ => {
            eprintln!("usage: soak MINUTES [SEED]");
            return ExitCode::from(2);
        }
    };
    let settings = Settings {
        churn: Duration::from_secs(60 * minutes),
        seed,
    };
    println!("soak: {minutes} minutes, seed {seed}");
    let lived = sandbox::enter()
        .map_err(io::Error::other)
        .and_then(|()| soak::run(settings, |line| println!("── {line}")));
    match lived {
        Ok(report) => {
            println!("\n{report}");
            if report.violations.is_empty() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}
