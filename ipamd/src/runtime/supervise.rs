//! Supervision of tasks: the end of a critical task ends the daemon; work in progress is completed before the daemon
//! exits.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinSet, time::timeout};

/// The daemon's long-lived tasks. None of them ends in normal operation.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<&'static str>,
}

impl Supervisor {
    /// Starts a task whose end, for any reason, ends the daemon.
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

    /// Waits until one of them ends and returns which one and how.
    pub async fn first_end(&mut self) -> String {
        match self.tasks.join_next().await {
            Some(Ok(name)) => format!("task \"{name}\" ended"),
            Some(Err(error)) => format!("a task died: {error}"),
            None => std::future::pending().await,
        }
    }
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
    async fn shutdown_waits_for_work_that_nobody_waits_for() {
        let detached = Detached::default();
        drop(detached.spawn(tokio::time::sleep(Duration::from_secs(3))));
        let begun = tokio::time::Instant::now();
        assert!(detached.finished(Duration::from_secs(10)).await);
        assert_eq!(begun.elapsed().as_secs(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_does_not_wait_for_ever() {
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
        let mut supervisor = Supervisor::default();
        supervisor.critical("pool", std::future::pending());
        supervisor.critical("server", async {});
        assert_eq!(supervisor.first_end().await, "task \"server\" ended");
    }
}
