//! Who watches the tasks: critical ones end the daemon when they end; work in flight is let finish before it exits.

use std::{convert::Infallible, future::Future, time::Duration};

use tokio::{sync::mpsc, task::JoinSet, time::timeout};

/// The daemon's long-lived tasks. None of them ends by itself while all is well.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<&'static str>,
}

impl Supervisor {
    /// Starts a task whose end, for whatever reason, is the end of the daemon.
    pub fn critical(
        &mut self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) {
        self.tasks.spawn(async move {
            task.await;
            name
        });
    }

    /// Waits until one of them ends and says which and how.
    pub async fn first_end(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("task \"{name}\" ended"),
            Some(Err(error)) => format!("a task died: {error}"),
            None => std::future::pending().await,
        }
    }
}

/// Starts work that must run to its end even if whoever asked for it is gone; shutdown waits for it.
#[derive(Clone, Debug)]
pub struct Detached {
    /// Held by each piece of work; shutdown is complete when all clones are gone.
    alive: mpsc::Sender<Infallible>,
}

/// The other end of [`Detached`].
#[derive(Debug)]
pub struct Drain {
    gone: mpsc::Receiver<Infallible>,
}

/// A pair to start work with and to wait for its end.
#[must_use]
pub fn detached() -> (Detached, Drain) {
    let (alive, gone) = mpsc::channel(1);
    (Detached { alive }, Drain { gone })
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
        let alive = self.alive.clone();
        tokio::spawn(async move {
            let result = work.await;
            drop(alive);
            result
        })
    }
}

impl Drain {
    /// Waits until all work has ended, at most `limit`; says whether it did. Every [`Detached`] must be dropped first.
    pub async fn finished(mut self, limit: Duration) -> bool {
        timeout(limit, self.gone.recv()).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn shutdown_waits_for_work_that_nobody_waits_for() {
        let (detached, drain) = detached();
        drop(detached.spawn(tokio::time::sleep(Duration::from_secs(3))));
        drop(detached);
        let begun = tokio::time::Instant::now();
        assert!(drain.finished(Duration::from_secs(10)).await);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_for_ever() {
        let (detached, drain) = detached();
        drop(detached.spawn(std::future::pending::<()>()));
        drop(detached);
        assert!(!drain.finished(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn the_first_task_to_end_is_named() {
        let mut supervisor = Supervisor::default();
        supervisor.critical("pool", std::future::pending());
        supervisor.critical("server", async {});
        assert_eq!(supervisor.first_end().await, "task \"server\" ended");
    }
}
