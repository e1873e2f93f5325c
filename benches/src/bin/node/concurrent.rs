//! Runs many tasks at the same time, each on its own thread, and measures the total time. Knows nothing about the tasks.

use std::{io, sync::Barrier, time::Duration};

use crate::sample::now;

/// Runs all of `tasks` at once: from the start of the first to the end of the last. Measured by the tasks' own
/// clocks: the thread that starts them is one among hundreds, and may read its clock when some are done.
///
/// # Errors
/// The first error of a task, after all have ended.
pub fn at_once<T, W>(tasks: Vec<W>) -> io::Result<(Duration, Vec<T>)>
where
    T: Send,
    W: FnOnce() -> io::Result<T> + Send,
{
    let start = Barrier::new(tasks.len());
    let runs: Vec<_> = std::thread::scope(|scope| {
        let timed = |task: W| {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let begun = now();
                let done = task();
                (begun, now(), done)
            })
        };
        let threads: Vec<_> = tasks.into_iter().map(timed).collect();
        let ended = threads.into_iter();
        ended
            .map(|run| run.join().expect("no panic in it"))
            .collect()
    });
    let first = runs.iter().map(|(begun, ..)| *begun).min();
    let last = runs.iter().map(|(_, ended, _)| *ended).max();
    let took = last.zip(first).map(|(last, first)| last - first);
    let done: io::Result<Vec<T>> = runs.into_iter().map(|(.., done)| done).collect();
    Ok((took.unwrap_or_default(), done?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parallel_jobs_take_as_long_as_the_slowest_and_report_failures() {
        let sleep = |millis| {
            move || {
                std::thread::sleep(Duration::from_millis(millis));
                match millis {
                    13 => Err(io::Error::other("unlucky")),
                    millis => Ok(millis),
                }
            }
        };
        let (took, done) = at_once(vec![sleep(1), sleep(40), sleep(2)]).unwrap();
        assert!(took >= Duration::from_millis(40));
        assert_eq!(done, [1, 40, 2]);
        let failed = at_once(vec![sleep(1), sleep(13)]).unwrap_err();
        assert_eq!(failed.to_string(), "unlucky");
    }
}
