//! A thread that owns one thing and does blocking work on it, one job after the other.
//!
//! The host's network has one writer: the thread that owns its netlink socket. Async code hands it closures.

use std::{
    fmt, io,
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::{oneshot, watch};

/// A piece of work on the thing.
pub type Job<T> = Box<dyn FnOnce(&mut T) + Send>;

/// A handle on the thread; the thread ends when all handles are gone.
pub struct Worker<T> {
    /// Queues a job; false if nobody will ever take it.
    queue: Arc<dyn Fn(Job<T>) -> bool + Send + Sync>,
    /// Its other half belongs to the thread, if there is one.
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

/// The thread is gone: it panicked, or the daemon is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("worker thread has ended")]
pub struct Gone;

impl<T: 'static> Worker<T> {
    /// Starts the thread and gives it its thing.
    ///
    /// # Errors
    /// The operating system's refusal to start a thread.
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

    /// A worker without a thread: `take` is given each job at the call and does it then and there, or never. For
    /// simulations, where a thread would have a clock of its own.
    pub fn without_thread(take: impl Fn(Job<T>) + Send + Sync + 'static) -> Self {
        Self {
            queue: Arc::new(move |job| {
                take(job);
                true
            }),
            thread: None,
        }
    }

    /// Waits until the thread has ended. While a handle is left it does so by a panic only, and takes no other job then:
    /// who cannot do without it must end too.
    pub fn ended(&self) -> impl Future<Output = ()> + use<T> {
        let thread = self.thread.clone();
        async move {
            match thread {
                // Nothing is ever sent; what comes is the end of the other half.
                Some(mut thread) => while thread.changed().await.is_ok() {},
                None => std::future::pending().await,
            }
        }
    }

    /// Runs `job` on the thread and gives its result.
    ///
    /// The job is queued at once, so jobs run in the order of the calls, and runs even if the caller stops waiting.
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
    async fn a_job_that_panics_is_told_to_its_caller_and_the_next() {
        let worker = Worker::start("test", ()).unwrap();
        assert_eq!(
            worker.run(|()| panic!("on purpose")).await,
            Err::<(), _>(Gone)
        );
        assert_eq!(worker.run(|()| ()).await, Err(Gone));
    }

    #[tokio::test]
    async fn the_end_of_the_thread_is_told_and_nothing_else() {
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
