//! Slots for connections: how many there are, which connections must close when all are used, and how much unanswered
//! input all connections together may hold.
//!
//! A connection is idle while it has no complete request in progress, however much of one has arrived. Idle connections
//! are closed after a time, or immediately if another connection needs the slot, so that a thousand partial frames do
//! not affect others. Knows neither sockets nor gRPC.

use std::{
    collections::BTreeMap,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot},
    time::{Instant, Sleep},
};

/// The limits of connections.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The maximum number of connections.
    pub slots: usize,
    /// How long a connection may have no complete request. It is closed after one to two times this time.
    pub idle: Duration,
    /// The maximum number of bytes that one connection may send beyond its answered requests.
    pub each: usize,
    /// The same for all connections together.
    pub all: usize,
}

/// Descriptors that the daemon needs in addition to its connections: sockets, the store, the EC2 client's pool.
const OWN_DESCRIPTORS: u64 = 128;
/// A connection uses one and passes two; a request whose connection has ended may hold two more.
const DESCRIPTORS_PER_SLOT: u64 = 5;

impl Limits {
    /// As many slots as `descriptors` allow, up to 1,024: four times the pods of a large node.
    #[must_use]
    pub fn within(descriptors: u64) -> Self {
        let slots = descriptors.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_PER_SLOT;
        Self {
            slots: usize::try_from(slots.clamp(8, 1024)).expect("at most 1,024"),
            idle: Duration::from_secs(5),
            each: super::REQUEST_LIMIT + (64 << 10),
            all: 32 << 20,
        }
    }
}

/// Why a connection is closed before its peer closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndReason {
    #[error("it sent no complete request for too long")]
    Idle,
    #[error("it was idle, and all slots were occupied")]
    Yielded,
    #[error("it sent more than a request may hold")]
    Overfull,
}

impl From<EndReason> for io::Error {
    fn from(ended: EndReason) -> Self {
        Self::other(ended)
    }
}

/// What a connection and its requests share.
#[derive(Debug, Default)]
struct Activity {
    under_way: AtomicUsize,
    served: AtomicUsize,
    /// Bytes since the last answered request.
    held: AtomicUsize,
    /// The same for all connections.
    held_by_all: Arc<AtomicUsize>,
}

impl Activity {
    fn let_go(&self) {
        self.held_by_all
            .fetch_sub(self.held.swap(0, Relaxed), Relaxed);
    }
}

/// All slots. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct ConnectionSlots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limits: Limits,
    occupied: Mutex<Occupied>,
    freed: Notify,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Occupied {
    next: u64,
    /// By age. The sender tells the connection to close, once.
    slots: BTreeMap<u64, (Arc<Activity>, Option<oneshot::Sender<()>>)>,
}

impl ConnectionSlots {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared {
            limits,
            occupied: Mutex::default(),
            freed: Notify::new(),
            held: Arc::default(),
        }))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.limits.slots
    }

    /// A slot: a free one, or that of the connection that has been idle longest, after it has closed; otherwise waits
    /// until one is free.
    pub async fn take(&self) -> Slot {
        loop {
            // A permit of `notify_one` is kept for the next waiter, so none is missed between the two.
            let freed = self.0.freed.notified();
            if let Some(slot) = self.take_free() {
                return slot;
            }
            freed.await;
        }
    }

    /// Closes several at a time: one by one, each new connection would wait until another task has run.
    fn make_room(&self, occupied: &mut Occupied) {
        let most = (self.0.limits.slots / 8).max(1);
        let leaving = occupied.slots.values().filter(|(_, tell)| tell.is_none());
        let idle = most.saturating_sub(leaving.count());
        let idle = occupied
            .slots
            .values_mut()
            .filter(|(activity, tell)| tell.is_some() && activity.under_way.load(Relaxed) == 0)
            .take(idle);
        for (_, tell) in idle {
            if let Some(tell) = tell.take() {
                // A connection that cannot be told is already closing.
                tell.send(()).unwrap_or_default();
            }
        }
    }

    fn take_free(&self) -> Option<Slot> {
        let mut occupied = self.0.occupied.lock().expect("no holder panics");
        if occupied.slots.len() >= self.0.limits.slots {
            self.make_room(&mut occupied);
            return None;
        }
        let activity = Arc::new(Activity {
            held_by_all: self.0.held.clone(),
            ..Activity::default()
        });
        let (tell, told) = oneshot::channel();
        let number = occupied.next;
        occupied.next += 1;
        occupied
            .slots
            .insert(number, (activity.clone(), Some(tell)));
        Some(Slot {
            shared: self.0.clone(),
            number,
            activity,
            told,
            timer: Box::pin(tokio::time::sleep(self.0.limits.idle)),
            seen: 0,
            ended: None,
        })
    }
}

/// One connection's slot, until dropped.
pub struct Slot {
    shared: Arc<Shared>,
    number: u64,
    activity: Arc<Activity>,
    told: oneshot::Receiver<()>,
    timer: Pin<Box<Sleep>>,
    /// The number of answered requests when the timer was last set.
    seen: usize,
    ended: Option<EndReason>,
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Slot {
    /// A connection takes the slot, which may have been free for long: its time starts now.
    pub fn occupy(&mut self) {
        let idle = Instant::now() + self.shared.limits.idle;
        self.timer.as_mut().reset(idle);
    }

    /// Ready when the connection must close. Poll this whenever the connection is read.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<EndReason> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        if Pin::new(&mut self.told).poll(cx).is_ready() {
            return Poll::Ready(self.end(EndReason::Yielded));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let served = self.activity.served.load(Relaxed);
            if !self.is_in_use() && served == self.seen {
                return Poll::Ready(self.end(EndReason::Idle));
            }
            self.seen = served;
            let again = Instant::now() + self.shared.limits.idle;
            self.timer.as_mut().reset(again);
        }
        Poll::Pending
    }

    fn end(&mut self, why: EndReason) -> EndReason {
        *self.ended.insert(why)
    }

    /// Ends when the connection must close.
    pub async fn ended(&mut self) -> EndReason {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Records that the connection sent this many bytes.
    ///
    /// # Errors
    /// [`EndReason::Overfull`] if this is too much, for the connection or for all together.
    pub fn charge(&mut self, bytes: usize) -> Result<(), EndReason> {
        // Bytes after a complete request do not belong to another one: there is one at a time.
        if self.is_in_use() {
            return Ok(());
        }
        let own = self.activity.held.fetch_add(bytes, Relaxed) + bytes;
        let all = self.shared.held.fetch_add(bytes, Relaxed) + bytes;
        if own > self.shared.limits.each || all > self.shared.limits.all {
            return Err(self.end(EndReason::Overfull));
        }
        Ok(())
    }

    /// Whether a request of the connection is in progress.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.activity.under_way.load(Relaxed) > 0
    }

    /// For the requests on this connection.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests(self.activity.clone())
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.activity.let_go();
        self.shared
            .occupied
            .lock()
            .expect("no holder panics")
            .slots
            .remove(&self.number);
        self.shared.freed.notify_one();
    }
}

/// Where a connection's requests report.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Activity>);

impl Requests {
    /// A complete request has arrived; the connection is not idle until the value is dropped.
    #[must_use]
    pub fn begin(&self) -> InFlight {
        self.0.under_way.fetch_add(1, Relaxed);
        InFlight(self.0.clone())
    }
}

/// One request in progress.
#[derive(Debug)]
pub struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.let_go();
        self.0.served.fetch_add(1, Relaxed);
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
