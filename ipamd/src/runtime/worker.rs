//! A thread that owns one value and does blocking work with it, one job after another.
//!
//! The host's network has one writer: the thread that owns its netlink socket. Async code sends closures to it.

use std::{
    fmt, io,
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::{oneshot, watch};

/// A job with access to the value.
pub type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle for the thread. The thread ends when all handles are dropped.
pub struct Worker<T> {
    /// Queues a job; false if the thread has ended.
    queue: Arc<dyn Fn(Job<T>) -> bool + Send + Sync>,
    /// The other half belongs to the thread, if there is one.
    thread: Option<watch::Receiver<()>>,
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl<T> Clone for Worker<T> {
    fn clone(&self) -> Self {
        Self {
            queue: self.queue.clone(),
            thread: self.thread.clone(),
        }
    }
}

/// The thread has ended: it panicked, or the daemon is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker thread has ended")]
pub struct Gone;

impl<T: 'static> Worker<T> {
    /// Starts the thread with its value.
    ///
    /// # Errors
    /// The operating system's error when the thread cannot be started.
    pub fn start(name: &str, mut thing: T) -> io::Result<Self>
    where
        T: Send,
    {
        let (jobs, queue) = mpsc::channel::<Job<T>>();
        let (alive, thread) = watch::channel(());
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                for job in queue {
                    job(&mut thing);
                }
            })?;
        Ok(Self {
            queue: Arc::new(move |job| jobs.send(job).is_ok()),
            thread: Some(thread),
        })
    }

    /// A worker without a thread: `take` gets each job immediately and runs or drops it. For simulations, where a
    /// thread would have its own clock.
    pub fn without_thread(take: impl Fn(Job<T>) + Send + Sync + 'static) -> Self {
        Self {
            queue: Arc::new(move |job| {
                take(job);
                true
            }),
            thread: None,
        }
    }

    /// Waits until the thread has ended. While a handle exists, this happens only after a panic, and the thread takes
    /// no more jobs: a caller that depends on it must end too.
    pub fn ended(&self) -> impl Future<Output = ()> + use<T> {
        let thread = self.thread.clone();
        async move {
            match thread {
                // Nothing is ever sent; the change is the end of the other half.
                Some(mut thread) => while thread.changed().await.is_ok() {},
                None => std::future::pending().await,
            }
        }
    }

    /// Runs `job` on the thread and returns its result.
    ///
    /// The job is queued immediately, so jobs run in the order of the calls. It runs even if the caller stops waiting.
    ///
    /// # Errors
    /// [`Gone`] if the thread has ended, or ends before the job does.
    pub fn run<R, F>(&self, job: F) -> impl Future<Output = Result<R, Gone>> + use<R, F, T>
    where
        R: Send + 'static,
        F: FnOnce(&mut T) -> R + Send + 'static,
    {
        let (reply, result) = oneshot::channel();
        let queued = (self.queue)(Box::new(move |thing| drop(reply.send(job(thing)))));
        async move {
            if !queued {
                return Err(Gone);
            }
            result.await.map_err(|_| Gone)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn jobs_run_in_the_order_of_the_calls_even_unawaited() {
        let worker = Worker::start("test", Vec::new()).unwrap();
        drop(worker.run(|seen| seen.push(1)));
        let second = worker.run(|seen| {
            seen.push(2);
            seen.clone()
        });
        assert_eq!(second.await, Ok(vec![1, 2]));
    }

    #[tokio::test]
    async fn a_panic_of_a_job_is_reported_to_its_caller_and_the_next() {
        let worker = Worker::start("test", ()).unwrap();
        assert_eq!(
            worker.run(|()| panic!("on purpose")).await,
            Err::<(), _>(Gone)
        );
        assert_eq!(worker.run(|()| ()).await, Err(Gone));
    }

    #[tokio::test]
    async fn only_the_end_of_the_thread_is_reported() {
        let worker = Worker::start("test", ()).unwrap();
        let mut ended = std::pin::pin!(worker.ended());
        assert_eq!(worker.run(|()| ()).await, Ok(()));
        let early = tokio::select! {
            biased;
            () = &mut ended => true,
            () = std::future::ready(()) => false,
        };
        assert!(!early);
        worker.run(|()| panic!("on purpose")).await.unwrap_err();
        ended.await;
    }
}
