//! The thread that removes links. A removal waits for the kernel: no ADD may wait for it, and removals that come
//! together wait once.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use datapath::{netlink::Socket, pod};
use proto::error_chain::chain;
use tokio::sync::oneshot;

use crate::{runtime::worker::Worker, telemetry::metrics::Metrics};

/// The most links that go at once. The kernel's lock on all links is held the longer the more there are, and an ADD
/// needs it too.
const BATCH: usize = 64;
/// The pauses before each try. What still stands after the last has no route, and goes with its namespace or at a start.
const BEFORE: [Duration; 4] = [
    Duration::ZERO,
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
];

/// A handle on the thread.
#[derive(Clone, Debug)]
pub(super) struct Reaper {
    worker: Worker<Socket>,
    doomed: Arc<Mutex<Vec<Doomed>>>,
    metrics: Arc<Metrics>,
}

/// A link to be removed, and who waits for it.
#[derive(Debug)]
struct Doomed {
    name: String,
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

    /// Has the link removed; the future ends when it is gone, or the thread is and leaves it to its namespace's end.
    pub(super) fn remove(&self, name: String) -> impl Future<Output = ()> + Send + use<> {
        let (sender, gone) = oneshot::channel::<()>();
        let doomed = Doomed {
            name,
            _gone: sender,
        };
        self.doomed.lock().expect("no holder panics").push(doomed);
        let (waiting, metrics) = (self.doomed.clone(), self.metrics.clone());
        // One job for each link, and each takes all that have come by then: the later ones find nothing left to do.
        drop(self.worker.run(move |socket| {
            let batch = take(&mut waiting.lock().expect("no holder panics"));
            remove(socket, &batch, &metrics);
        }));
        // Nothing is ever sent: the sender goes with its link.
        async move { drop(gone.await) }
    }
}

fn take(waiting: &mut Vec<Doomed>) -> Vec<Doomed> {
    let most = waiting.len().min(BATCH);
    waiting.drain(..most).collect()
}

fn remove(socket: &mut Socket, batch: &[Doomed], metrics: &Metrics) {
    let names: Vec<&str> = batch.iter().map(|doomed| doomed.name.as_str()).collect();
    if names.is_empty() {
        return;
    }
    for pause in BEFORE {
        thread::sleep(pause);
        // Those that are gone by then are no failure.
        let Err(errors) = pod::unlink_many(socket, &names) else {
            return;
        };
        for error in errors {
            metrics.link_removal_failed();
            tracing::error!(
                links = ?names,
                error = chain(&error),
                "could not remove a pod's link"
            );
        }
    }
}
