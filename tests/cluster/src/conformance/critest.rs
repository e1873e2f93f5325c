//! Runs cri-tools' networking specs on a node. They use its container runtime alone: kubelet would end pods that it does
//! not know.

use std::{fs, fs::File, io, path::Path, process::Stdio};

use super::{
    record::{Outcome, Spec},
    report,
};
use crate::{images, machine::Machine, programs};

/// Its name in a record.
pub const SUITE: &str = "critest";

/// Runs the specs on a node whose kubelet is stopped. `busybox` is the name of an image with a shell.
///
/// # Errors
/// If the program cannot be run or writes no report. The error contains its output.
pub fn run(node: &Machine, logs: &Path, busybox: &str) -> io::Result<Vec<Spec>> {
    let images = logs.join("critest-images.yaml");
    fs::write(
        &images,
        format!(
            "defaultTestContainerImage: {busybox}\nwebServerTestImage: {}\n",
            images::WEB
        ),
    )?;
    let report = logs.join("critest.json");
    let log = logs.join("critest.log");
    let output = File::create(&log)?;
    let program = programs::conformance()?.join("critest");
    let mut command = node.command(&program.display().to_string())?;
    command
        .env("HOME", logs)
        .arg("--runtime-endpoint=unix:///run/containerd/containerd.sock")
        .arg(format!("--test-images-file={}", images.display()))
        .args(["--ginkgo.focus=Networking", "--ginkgo.no-color"])
        .arg(format!("--ginkgo.json-report={}", report.display()))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    // A failed spec is in the report.
    let ended = command.status()?;
    let specs = report::read(&report).unwrap_or_default();
    if specs.is_empty() {
        let log = fs::read_to_string(log)?;
        return Err(io::Error::other(format!(
            "critest ran no spec ({ended}):\n{log}"
        )));
    }
    let spec = |reported: report::Reported| Spec {
        suite: SUITE.to_owned(),
        name: reported.name,
        outcome: if reported.passed {
            Outcome::Passed
        } else {
            Outcome::Failed
        },
        seconds: reported.seconds,
    };
    let mut specs: Vec<_> = specs.into_iter().map(spec).collect();
    // critest runs them in random order.
    specs.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(specs)
}
