//! Runs Kubernetes' specs. Each one runs in a process of its own, several at a time: most of their time is waiting.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
    thread,
};

use super::{
    record::{Outcome, Spec},
    report,
};
use crate::{cluster::Cluster, programs};

/// The names of all specs of this suite.
const SUITE: &str = r"\[sig-network\].*\[Conformance\]";
const AT_ONCE: usize = 3;
const LIMIT: &str = "--ginkgo.timeout=15m";

/// The specs' logs and reports.
#[derive(Debug)]
pub struct Suite<'a> {
    pub cluster: &'a Cluster,
    pub logs: PathBuf,
}

impl Suite<'_> {
    /// The images that the specs may use.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn images() -> io::Result<Vec<String>> {
        let mut command = Command::new(program()?);
        let listed = crate::command::run(command.arg("--list-images"))?;
        Ok(listed.lines().map(str::to_owned).collect())
    }

    /// The names of the specs.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let mut command = self.command("names", SUITE)?;
        command.arg("--ginkgo.dry-run");
        if !command.status()?.success() {
            let log = fs::read_to_string(self.logs.join("names.log"))?;
            return Err(io::Error::other(format!("no spec can be listed:\n{log}")));
        }
        let specs = report::read(&self.logs.join("names.json"))?;
        Ok(specs.into_iter().map(|spec| spec.name).collect())
    }

    /// Runs these specs, and those that fail once more, alone. `told` is called at the end of each.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub fn run(
        &self,
        mode: &str,
        names: &[String],
        told: &(dyn Fn(&Spec) + Sync),
    ) -> io::Result<Vec<Spec>> {
        let queue = Mutex::new(names.iter().enumerate().collect::<VecDeque<_>>());
        let next = || {
            let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.pop_front()
        };
        let work = || {
            let mut done = Vec::new();
            while let Some((number, name)) = next() {
                let spec = self.run_one(&format!("{mode}-{number}"), mode, name)?;
                told(&spec);
                done.push((number, spec));
            }
            Ok::<_, io::Error>(done)
        };
        let mut specs = thread::scope(|scope| {
            let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
            let mut specs = Vec::new();
            for worker in workers {
                specs.extend(worker.join().expect("no worker panics")?);
            }
            Ok::<_, io::Error>(specs)
        })?;
        specs.sort_by_key(|(number, _)| *number);
        for (number, spec) in &mut specs {
            if spec.outcome == Outcome::Failed {
                let again = self.run_one(&format!("{mode}-{number}-alone"), mode, &spec.name)?;
                if again.outcome == Outcome::Passed {
                    spec.outcome = Outcome::PassedAlone;
                    spec.seconds = again.seconds;
                }
                told(spec);
            }
        }
        Ok(specs.into_iter().map(|(_, spec)| spec).collect())
    }

    fn run_one(&self, log: &str, mode: &str, name: &str) -> io::Result<Spec> {
        let focus = format!("{}$", literal(name));
        let ended = self.command(log, &focus)?.status()?;
        // Without a report, the program did not get as far as the spec.
        let reports = report::read(&self.logs.join(format!("{log}.json"))).unwrap_or_default();
        let report = reports.iter().find(|report| report.name == name);
        let passed = ended.success() && report.is_some_and(|report| report.passed);
        Ok(Spec {
            suite: mode.to_owned(),
            name: name.to_owned(),
            outcome: if passed {
                Outcome::Passed
            } else {
                Outcome::Failed
            },
            seconds: report.map_or(0, |report| report.seconds),
        })
    }

    /// On the control plane's machine, from where all nodes' addresses are reachable.
    fn command(&self, log: &str, focus: &str) -> io::Result<Command> {
        let program = program()?.display().to_string();
        let output = File::create(self.logs.join(format!("{log}.log")))?;
        let report = self.logs.join(format!("{log}.json"));
        let mut command = self.cluster.control_plane.command(&program)?;
        command
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .env("HOME", &self.logs)
            .arg(format!(
                "--kubeconfig={}",
                self.cluster.kubeconfig().display()
            ))
            .args(["--provider=skeleton", "--ginkgo.no-color", LIMIT])
            .arg(format!("--ginkgo.focus={focus}"))
            .arg(format!("--ginkgo.json-report={}", report.display()))
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        Ok(command)
    }
}

fn program() -> io::Result<PathBuf> {
    programs::conformance().map(|directory: PathBuf| directory.join("e2e.test"))
}

/// A regular expression for this text.
fn literal(text: &str) -> String {
    let mut expression = String::new();
    for letter in text.chars() {
        if letter.is_ascii_punctuation() {
            expression.push('\\');
        }
        expression.push(letter);
    }
    expression
}

/// The directory of the logs, empty.
///
/// # Errors
/// If it cannot be created.
pub fn fresh(logs: &Path) -> io::Result<()> {
    match fs::remove_dir_all(logs) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => fs::create_dir_all(logs),
    }
}
