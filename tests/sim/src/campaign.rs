//! Many seeds on every core. Each seed is a separate world, so their order does not matter.

use std::{
    fmt, io,
    ops::Range,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    faults::{Fault, Tally},
    run::{Failure, Kept, run},
};

/// The number of failures that are reported in full.
const SHOWN: usize = 5;
/// Seeds between two lines of progress.
const PROGRESS: u64 = 5000;

/// The result of a range of seeds.
#[derive(Debug, Default)]
pub struct Report {
    pub seeds: u64,
    pub tally: Tally,
    pub calls: u64,
    /// The maximum number of calls in any minute of any run.
    pub peak: usize,
    pub kept: Kept,
    pub failures: Vec<Failure>,
    pub took: Duration,
}

/// Runs `seeds` on `threads` threads, and reports the progress. Ends early after some failures.
///
/// # Errors
/// The first error of `tell`, after which no more seeds are started.
pub fn run_all(
    seeds: Range<u64>,
    threads: usize,
    tell: impl Fn(String) -> io::Result<()> + Sync,
) -> io::Result<Report> {
    let begun = tokio::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let report = Mutex::new(Report::default());
    let untold = Mutex::new(None);
    let tell = |line: String| {
        let told = tell(line);
        if let Err(error) = told {
            next.store(seeds.end, Ordering::Relaxed);
            untold
                .lock()
                .expect("a panic ends the campaign")
                .get_or_insert(error);
        }
    };
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        let outcome = run(seed);
        let mut report = report.lock().expect("a panic ends the campaign");
        report.seeds += 1;
        report.tally.add(&outcome.tally);
        report.calls += outcome.calls;
        report.peak = report.peak.max(outcome.peak);
        report.kept.add(outcome.kept);
        if let Some(failure) = outcome.failure {
            tell(failure.to_string());
            report.failures.push(failure);
        }
        if report.failures.len() >= SHOWN {
            return;
        }
        if report.seeds % PROGRESS == 0 {
            tell(format!(
                "{} seeds in {:.0} s",
                report.seeds,
                begun.elapsed().as_secs_f64()
            ));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    if let Some(error) = untold.into_inner().expect("the threads have ended") {
        return Err(error);
    }
    let mut report = report.into_inner().expect("the threads have ended");
    report.took = begun.elapsed();
    Ok(report)
}

/// [`run_all`] on every core.
///
/// # Errors
/// As [`run_all`].
pub fn run_on_all_cores(
    seeds: Range<u64>,
    tell: impl Fn(String) -> io::Result<()> + Sync,
) -> io::Result<Report> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    run_all(seeds, threads, tell)
}

impl Kept {
    const fn add(&mut self, other: Self) {
        self.liveness += other.liveness;
        self.leaks += other.leaks;
        self.silence += other.silence;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Kept {
            liveness,
            leaks,
            silence,
        } = self.kept;
        writeln!(
            f,
            "{} seeds in {:.1} s, {} EC2 calls (at most {} in a minute), {} failures",
            self.seeds,
            self.took.as_secs_f64(),
            self.calls,
            self.peak,
            self.failures.len()
        )?;
        writeln!(
            f,
            "tested: liveness {liveness}, leaks {leaks}, silence {silence}; faults that struck:"
        )?;
        for fault in Fault::ALL {
            writeln!(f, "  {:<24} {}", fault.name(), self.tally.of(*fault))?;
        }
        Ok(())
    }
}
