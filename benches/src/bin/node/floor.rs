//! The floors: C programs with the work that no implementation can avoid. They are compiled and run by the benchmark.

use std::{
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::{
    concurrent::at_once,
    sample::{Sample, now},
};

const NOOP: &str = include_str!("../../../floor/noop.c");
const BARE: &str = include_str!("../../../floor/bare.c");
const STEPS: &str = include_str!("../../../floor/steps.c");

/// The number of pods that one run of the steps wires.
const PODS: u32 = 50;

/// See the module.
#[derive(Debug)]
pub struct Floor {
    noop: PathBuf,
    bare: PathBuf,
    steps: PathBuf,
}

impl Floor {
    /// Compiles the programs statically into `dir`.
    ///
    /// # Errors
    /// If there is no C compiler, or it fails.
    pub fn build(dir: &Path) -> io::Result<Self> {
        Ok(Self {
            noop: compile(dir, "noop", NOOP, &[])?,
            bare: compile(dir, "bare", BARE, &["-nostdlib"])?,
            steps: compile(dir, "steps", STEPS, &[])?,
        })
    }

    /// The time from before the start of a program that does nothing to after its end, including pipes, like the
    /// plugin's run.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn exec(&self) -> io::Result<Duration> {
        run(&self.noop)
    }

    /// The same of a program without a C library.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn bare_exec(&self) -> io::Result<Duration> {
        run(&self.bare)
    }

    /// The total time of this many programs that do nothing, all started at once.
    ///
    /// # Errors
    /// If one cannot be run.
    pub fn exec_at_once(&self, count: usize) -> io::Result<Duration> {
        let runs = (0..count).map(|_| || run(&self.noop)).collect();
        at_once(runs).map(|(took, _)| took)
    }

    /// The median duration of a pod's wiring with plain netlink, in milliseconds: the total, and of `pair`, `pod` and
    /// `host`.
    ///
    /// # Errors
    /// If the program fails.
    fn steps(&self) -> io::Result<(Steps, HeldNamespaces)> {
        let mut child = Command::new(&self.steps)
            .arg(PODS.to_string())
            .arg(&self.noop)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let told = child.stdout.take();
        let held = HeldNamespaces(child);
        let mut millis = Vec::new();
        for line in told
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufRead::lines)
        {
            let micros = line?.rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
            millis.extend(micros.map(|micros| micros / 1e3));
            if let [pair, pod, host, whole] = millis[..] {
                let steps = Steps {
                    pair,
                    pod,
                    host,
                    whole,
                };
                return Ok((steps, held));
            }
        }
        Err(io::Error::other("the floor's steps failed"))
    }
}

/// A completed run of the steps, whose namespaces exist until this is dropped: the kernel deletes them under the lock
/// that every ADD needs, so this must not happen during a measurement.
#[derive(Debug)]
struct HeldNamespaces(Child);

impl Drop for HeldNamespaces {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // It ends when its input is closed.
        drop(self.0.wait());
    }
}

/// Medians of one run, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Steps {
    pair: f64,
    pod: f64,
    host: f64,
    whole: f64,
}

/// Floors measured throughout a benchmark, so that other load affects both sides equally.
#[derive(Debug, Default)]
pub struct Floors {
    pub exec: Sample,
    pub bare: Sample,
    pub pair: Sample,
    pub pod: Sample,
    pub host: Sample,
    pub whole: Sample,
    held: Vec<HeldNamespaces>,
}

impl Floors {
    /// One more run of the steps, and `execs` runs of the program that does nothing.
    ///
    /// # Errors
    /// If one fails.
    pub fn gather(&mut self, floor: &Floor, execs: usize) -> io::Result<()> {
        for _ in 0..execs {
            self.exec.took(floor.exec()?);
            self.bare.took(floor.bare_exec()?);
        }
        let (steps, held) = floor.steps()?;
        self.held.push(held);
        self.pair.push(steps.pair);
        self.pod.push(steps.pod);
        self.host.push(steps.host);
        self.whole.push(steps.whole);
        Ok(())
    }

    /// Ends the runs so far. The kernel then removes their namespaces, in its own time.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// The minimum duration of an ADD, in milliseconds.
    pub fn add(&self) -> f64 {
        self.exec.median() + self.whole.median()
    }
}

fn compile(dir: &Path, name: &str, source: &str, flags: &[&str]) -> io::Result<PathBuf> {
    let (file, binary) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&file, source)?;
    let output = Command::new("gcc")
        .args(flags)
        .args(["-O2", "-static", "-o"])
        .args([&binary, &file])
        .output()?;
    if output.status.success() {
        Ok(binary)
    } else {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(io::Error::other(format!("cannot compile {name}: {why}")))
    }
}

fn run(program: &Path) -> io::Result<Duration> {
    let begun = now();
    let child = Command::new(program)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let output = child.wait_with_output()?;
    if output.status.success() {
        Ok(begun.elapsed())
    } else {
        Err(io::Error::other(format!("{} failed", program.display())))
    }
}
