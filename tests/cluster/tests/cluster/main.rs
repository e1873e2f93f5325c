//! A real Kubernetes with Hawser as its network: one cluster, brought up once, and what is shown on it in order. Beside it
//! the tests of what `deploy/` has, by the real helm and kubectl.

#![forbid(unsafe_code)]

mod conformance;
mod deploy;
mod hawser;
mod pods;
mod setup;
mod steps;
mod streams;
mod takeover;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// What a test and a part of one return.
type Outcome = Result<(), Failed>;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    // Listing works anywhere. A test that cannot have its namespaces fails; it is not skipped.
    if !arguments.list
        && let Err(why) = lab::sandbox::enter()
    {
        stdout::errln!("cluster: {why}");
        return ExitCode::FAILURE;
    }
    let mut trials = vec![
        Trial::test("a_real_kubernetes_runs_hawser", steps::run),
        Trial::test(
            "a_node_of_a_real_kubernetes_goes_from_aws_node_to_hawser_and_back",
            takeover::forth_and_back,
        ),
    ];
    trials.extend(conformance::trials());
    trials.extend(deploy::trials());
    libtest_mimic::run(&arguments, trials).exit_code()
}
