//! Every test that needs whole nodes, in one binary. `main` enters the sandbox before any thread exists.

#![forbid(unsafe_code)]

mod bounds;
mod capture;
mod cli;
mod closed_pipe;
mod cluster;
mod conformance;
mod crash;
mod crash_shrink;
mod crash_start;
mod deploy;
mod doctor;
mod egress;
mod faults_ec2;
mod faults_node;
mod growth;
mod imds;
mod inspect;
mod introspection;
mod ipv6;
mod lifecycle;
mod limits;
mod nodeport;
mod page;
mod pages;
mod prefixes;
mod refusals;
mod refused_effects;
mod repair;
mod restart;
mod restart_faults;
mod restart_files;
mod runtime;
mod snat;
mod spoof;
mod traces;
mod traffic;
mod upgrade;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed};

/// What a test answers.
type Outcome = Result<(), Failed>;

/// Names tests after the functions that they are.
macro_rules! trials {
    ($($function:ident),* $(,)?) => {
        pub fn trials() -> Vec<libtest_mimic::Trial> {
            let module = module_path!().split_once("::").map_or("", |(_, module)| module);
            vec![$(libtest_mimic::Trial::test(format!("{module}::{}", stringify!($function)), $function)),*]
        }
    };
}
pub(crate) use trials;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing must work anywhere; running must not: a test that cannot have its namespaces fails, it is not skipped.
    if !arguments.list
        && let Err(why) = e2e::sandbox::enter()
    {
        stdout::errln!("e2e: {why}");
        return ExitCode::FAILURE;
    }
    let suites = [
        capture::trials(),
        bounds::trials(),
        cli::trials(),
        closed_pipe::trials(),
        cluster::trials(),
        conformance::trials(),
        crash::trials(),
        crash_shrink::trials(),
        crash_start::trials(),
        deploy::trials(),
        doctor::trials(),
        egress::trials(),
        faults_ec2::trials(),
        faults_node::trials(),
        growth::trials(),
        imds::trials(),
        inspect::trials(),
        introspection::trials(),
        ipv6::forgery_trials(),
        ipv6::repair_trials(),
        ipv6::service_trials(),
        ipv6::trials(),
        lifecycle::trials(),
        limits::trials(),
        nodeport::trials(),
        page::trials(),
        pages::trials(),
        prefixes::trials(),
        refusals::trials(),
        refused_effects::trials(),
        repair::trials(),
        restart::trials(),
        restart_faults::trials(),
        restart_files::trials(),
        runtime::trials(),
        snat::trials(),
        spoof::trials(),
        traces::trials(),
        traffic::trials(),
        upgrade::trials(),
    ];
    libtest_mimic::run(&arguments, suites.into_iter().flatten().collect()).exit_code()
}
