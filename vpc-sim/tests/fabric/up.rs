//! `vpc-sim up`, the binary, with mounts of its own.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::Outcome;

/// Puts nothing on the machine: `/run` is another one.
const SCRIPT: &str = "mount -t tmpfs tmpfs /run; exec \"$0\" up --instance t3.small --instance t3.small@100.64.0.0/24 \
                      --vpc-cidr 10.0.0.0/16 --vpc-cidr 100.64.0.0/16 --subnet 10.0.0.0/20 \
                      --subnet 100.64.0.0/24,a,kubernetes.io/role/cni=1";

pub fn up_names_the_namespaces_of_its_instances() -> Outcome {
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-ec", SCRIPT])
        .arg(env!("CARGO_BIN_EXE_vpc-sim"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut line)?;
    let told: serde_json::Value = serde_json::from_str(&line)?;
    let in_pods = told["instances"][1]["address"].as_str().unwrap_or_default();
    assert!(in_pods.starts_with("100.64.0."), "{line}");
    assert_eq!(told["subnets"].as_array().map(Vec::len), Some(2), "{line}");
    let node = &told["instances"][0];
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    let pid = child.id().to_string();
    let inside = format!("--net={}", text("netns"));
    let addresses = Command::new("nsenter")
        .args(["--target", &pid, "--mount", "nsenter", &inside])
        .args(["ip", "-oneline", "address"])
        .output()?;
    kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM)?;
    assert!(child.wait()?.success());
    let addresses = String::from_utf8_lossy(&addresses.stdout);
    let own = format!(" {}/", text("address"));
    assert!(addresses.contains(&own), "{addresses}\n{line}");
    Ok(())
}
