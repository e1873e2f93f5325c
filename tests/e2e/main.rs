//! All tests that need whole nodes, in one binary: the folders are the themes.
//!
//! `main` enters the sandbox before any thread exists. `suite` defines what a test is, `support` has what several
//! themes share. A theme uses these two and `lab`, never another theme.

#![forbid(unsafe_code)]

mod cni;
mod crash;
mod faults;
mod ipv6;
mod neighbours;
mod operator;
mod subnets;
mod suite;
mod support;
mod takeover;
mod traffic;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing must work anywhere. Running must not: a test that cannot create its namespaces fails and is not skipped.
    if !arguments.list
        && let Err(why) = lab::sandbox::enter()
    {
        stdout::errln!("e2e: {why}");
        return ExitCode::FAILURE;
    }
    let themes = [
        cni::trials(),
        crash::trials(),
        faults::trials(),
        ipv6::trials(),
        neighbours::trials(),
        operator::trials(),
        subnets::trials(),
        takeover::trials(),
        traffic::trials(),
    ];
    libtest_mimic::run(&arguments, themes.into_iter().flatten().collect()).exit_code()
}
