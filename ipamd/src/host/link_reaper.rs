//! The thread that removes links, by index: names pass to other links. A removal waits for the kernel: an ADD must not wait for it, and removals at the same
//! time wait together.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use datapath::{netlink::Socket, pod};
use proto::error_chain::chain;
use tokio::sync::oneshot;

use crate::{runtime::worker::Worker, telemetry::metrics::Metrics};

/// The maximum number of links that are removed at once. With more links, the kernel holds its lock on all links
/// longer, and an ADD needs this lock too.
const BATCH: usize = 64;
/// The pauses before each try. A link that still exists after the last try has no route; it is removed with its
/// namespace or at the next start.
const BEFORE: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// A handle for the thread.
#[derive(Clone, Debug)]
pub(super) struct Reaper {
    worker: Worker<Socket>,
    doomed: Arc<Mutex<Vec<Doomed>>>,
    metrics: Arc<Metrics>,
}

/// A link to remove, and who waits for it.
#[derive(Debug)]
struct Doomed {
    index: u32,
    _gone: oneshot::Sender<()>,
}

impl Reaper {
    pub(super) fn start(socket: Socket, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        Ok(Self {
            worker: Worker::start("reaper", socket)?,
            doomed: Arc::default(),
            metrics,
        })
    }

    /// Removes the link. The future ends when it is removed, or when the thread has ended and the link is left until
    /// its namespace ends.
    pub(super) fn remove(&self, index: u32) -> impl Future<Output = ()> + Send + use<> {
        let (sender, gone) = oneshot::channel::<()>();
        let doomed = Doomed {
            index,
            _gone: sender,
        };
        self.doomed.lock().expect("no holder panics").push(doomed);
        let (waiting, metrics) = (self.doomed.clone(), self.metrics.clone());
        // One job per link, and each job takes all links that are queued: later jobs find nothing to do.
        drop(self.worker.run(move |socket| {
            let batch = take(&mut waiting.lock().expect("no holder panics"));
            remove(socket, &batch, &metrics);
        }));
        // Nothing is ever sent: the sender is dropped with its link.
        async move { drop(gone.await) }
    }
}

fn take(waiting: &mut Vec<Doomed>) -> Vec<Doomed> {
    let most = waiting.len().min(BATCH);
    waiting.drain(..most).collect()
}

fn remove(socket: &mut Socket, batch: &[Doomed], metrics: &Metrics) {
    let indices: Vec<u32> = batch.iter().map(|doomed| doomed.index).collect();
    if indices.is_empty() {
        return;
    }
    for pause in BEFORE {
        thread::sleep(pause);
        // Links that are already gone are not failures.
        let Err(errors) = pod::unlink_many(socket, &indices) else {
            return;
        };
        for error in errors {
            metrics.link_removal_failed();
            tracing::error!(
                links = ?indices,
                error = chain(&error),
                "could not remove a pod's link"
            );
        }
    }
}
