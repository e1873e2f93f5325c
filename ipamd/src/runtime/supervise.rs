//! Supervision of tasks: the end of a critical task ends the daemon; work in progress is completed before the daemon
//! exits.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::{Instant, timeout},
};

/// The delay before a panicked task is restarted. It doubles with each consecutive panic.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

/// Called with the name of each task that panics.
type OnPanic = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The daemon's long-lived tasks. Every panic is logged and counted.
pub struct Supervisor {
    /// A task that may end returns `None`.
    tasks: JoinSet<Option<String>>,
    on_panic: OnPanic,
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Supervisor {
    /// `on_panic` is called with the name of each task that panics.
    #[must_use]
    pub fn new(on_panic: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        Self {
            tasks: JoinSet::new(),
            on_panic: Arc::new(on_panic),
        }
    }

    /// Starts a task whose end, for any reason, ends the daemon.
    pub fn critical(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        let on_panic = self.on_panic.clone();
        self.tasks.spawn(async move {
            Some(match run_once(name, task, &on_panic).await {
                Ok(()) => format!("task \"{name}\" ended"),
                Err(panic) => format!("task \"{name}\" panicked: {panic}"),
            })
        });
    }

    /// Starts a task that the daemon does not need to serve pods. If it panics, it is restarted after a delay. It may also
    /// end by itself.
    pub fn restarted<F>(
        &mut self,
        name: &'static str,
        mut start: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let on_panic = self.on_panic.clone();
        self.tasks.spawn(async move {
            let mut backoff = FIRST_BACKOFF;
            loop {
                let begun = Instant::now();
                if run_once(name, start(), &on_panic).await.is_ok() {
                    return None;
                }
                // It ran long enough since the last panic.
                if begun.elapsed() > LONGEST_BACKOFF {
                    backoff = FIRST_BACKOFF;
                }
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
                tracing::info!(task = name, "restarting a task after a panic");
            }
        });
    }

    /// Waits until a critical task ends and returns which one and how.
    pub async fn first_end(&mut self) -> String {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Some(end))) => return end,
                Some(Ok(None)) => {}
                Some(Err(error)) => return format!("a task died: {error}"),
                None => std::future::pending().await,
            }
        }
    }
}

/// Runs the task to its end. The error is the text of its panic, which has been logged and counted.
async fn run_once(
    name: &'static str,
    task: impl Future<Output = ()> + Send + 'static,
    on_panic: &OnPanic,
) -> Result<(), String> {
    // A set of one: the task is aborted if the supervisor is dropped.
    let mut running = JoinSet::new();
    running.spawn(task);
    let Some(Err(error)) = running.join_next().await else {
        return Ok(());
    };
    let panic = panic_text(error);
    tracing::error!(task = name, panic, "a task panicked");
    on_panic(name);
    Err(panic)
}

fn panic_text(error: JoinError) -> String {
    let payload = match error.try_into_panic() {
        Ok(payload) => payload,
        Err(cancelled) => return cancelled.to_string(),
    };
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// Starts work that must complete even if its caller is gone; shutdown waits for it.
#[derive(Clone, Debug)]
pub struct Detached {
    under_way: Arc<watch::Sender<usize>>,
}

impl Default for Detached {
    fn default() -> Self {
        Self {
            under_way: Arc::new(watch::Sender::new(0)),
        }
    }
}

/// Counts one piece of work from start to end, including a panic.
struct Counted(Arc<watch::Sender<usize>>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.send_modify(|n| *n -= 1);
    }
}

impl Detached {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where spawned work gets its owner"
    )]
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.under_way.send_modify(|n| *n += 1);
        let counted = Counted(self.under_way.clone());
        tokio::spawn(async move {
            let result = work.await;
            drop(counted);
            result
        })
    }

    /// Starts work that shutdown does not wait for: it can be dropped at any point.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is where spawned work gets its owner"
    )]
    pub fn spawn_idle(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        tokio::spawn(work)
    }

    /// Waits until all work has ended, at most `limit`; returns whether it has.
    pub async fn finished(&self, limit: Duration) -> bool {
        let mut under_way = self.under_way.subscribe();
        timeout(limit, under_way.wait_for(|n| *n == 0))
            .await
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_detached_work() {
        let detached = Detached::default();
        drop(detached.spawn(tokio::time::sleep(Duration::from_secs(3))));
        let begun = tokio::time::Instant::now();
        assert!(detached.finished(Duration::from_secs(10)).await);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_forever() {
        let detached = Detached::default();
        drop(detached.spawn(std::future::pending::<()>()));
        assert!(!detached.finished(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn work_that_panics_has_ended_too() {
        let detached = Detached::default();
        assert!(
            detached
                .spawn(async { panic!("on purpose") })
                .await
                .is_err()
        );
        assert!(detached.finished(Duration::ZERO).await);
    }

    #[tokio::test]
    async fn the_first_task_to_end_is_named() {
        let mut supervisor = Supervisor::new(|_| ());
        supervisor.critical("pool", std::future::pending());
        supervisor.critical("server", async {});
        assert_eq!(supervisor.first_end().await, "task \"server\" ended");
    }

    #[tokio::test]
    async fn a_critical_task_that_panics_is_named_with_its_message_and_counted() {
        let (mut supervisor, panics) = counting();
        supervisor.critical("pool", async { panic!("on purpose") });
        let end = supervisor.first_end().await;
        assert_eq!(end, "task \"pool\" panicked: on purpose");
        assert_eq!(*panics.lock().unwrap(), ["pool"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_task_that_panics_is_counted_and_started_again_with_growing_pauses() {
        let (mut supervisor, panics) = counting();
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let begun = Instant::now();
        let mut number = 0;
        supervisor.restarted("conflist", move || {
            number += 1;
            let (number, started) = (number, started.clone());
            async move {
                started.send(begun.elapsed().as_secs()).unwrap();
                assert!(number > 9, "on purpose");
                std::future::pending::<()>().await;
            }
        });
        let mut at = Vec::new();
        while at.len() < 10 {
            tokio::select! {
                start = starts.recv() => at.push(start.unwrap()),
                end = supervisor.first_end() => panic!("{end}"),
            }
        }
        assert_eq!(at, [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
        assert_eq!(*panics.lock().unwrap(), ["conflist"; 9]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_restarted_task_that_ends_is_not_started_again_and_does_not_end_the_daemon() {
        let (mut supervisor, panics) = counting();
        let mut starts = 0;
        supervisor.restarted("node follower", move || {
            starts += 1;
            assert_eq!(starts, 1);
            async {}
        });
        let day = Duration::from_secs(86_400);
        assert!(timeout(day, supervisor.first_end()).await.is_err());
        assert!(panics.lock().unwrap().is_empty());
    }

    type Panics = Arc<std::sync::Mutex<Vec<&'static str>>>;

    fn counting() -> (Supervisor, Panics) {
        let panics = Panics::default();
        let counted = panics.clone();
        let supervisor = Supervisor::new(move |task| counted.lock().unwrap().push(task));
        (supervisor, panics)
    }
}
