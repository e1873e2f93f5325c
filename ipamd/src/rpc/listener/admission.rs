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
    pub seats: usize,
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
const DESCRIPTORS_PER_SEAT: u64 = 5;

impl Limits {
    /// As many slots as `descriptors` allow, up to 1,024: four times the pods of a large node.
    #[must_use]
    pub fn within(descriptors: u64) -> Self {
        let seats = descriptors.saturating_sub(OWN_DESCRIPTORS) / DESCRIPTORS_PER_SEAT;
        Self {
            seats: usize::try_from(seats.clamp(8, 1024)).expect("at most 1,024"),
            idle: Duration::from_secs(5),
            each: super::REQUEST_LIMIT + (64 << 10),
            all: 32 << 20,
        }
    }
}

/// Why a connection is closed before its peer closes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("no complete request came for too long")]
    Idle,
    #[error("it was idle, and all seats were taken")]
    Yielded,
    #[error("it sent more than a request may hold")]
    Overfull,
}

impl From<Ended> for io::Error {
    fn from(ended: Ended) -> Self {
        Self::other(ended)
    }
}

/// What a connection and its requests share.
#[derive(Debug, Default)]
struct Life {
    under_way: AtomicUsize,
    served: AtomicUsize,
    /// Bytes since the last answered request.
    held: AtomicUsize,
    /// The same for all connections.
    held_by_all: Arc<AtomicUsize>,
}

impl Life {
    fn let_go(&self) {
        self.held_by_all
            .fetch_sub(self.held.swap(0, Relaxed), Relaxed);
    }
}

/// All slots. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Seats(Arc<Hall>);

#[derive(Debug)]
struct Hall {
    limits: Limits,
    taken: Mutex<Taken>,
    freed: Notify,
    held: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By age. The sender tells the connection to close, once.
    seats: BTreeMap<u64, (Arc<Life>, Option<oneshot::Sender<()>>)>,
}

impl Seats {
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Hall {
            limits,
            taken: Mutex::default(),
            freed: Notify::new(),
            held: Arc::default(),
        }))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.limits.seats
    }

    /// A slot: a free one, or that of the connection that has been idle longest, after it has closed; otherwise waits
    /// until one is free.
    pub async fn take(&self) -> Seat {
        loop {
            // A permit of `notify_one` is kept for the next waiter, so none is missed between the two.
            let freed = self.0.freed.notified();
            if let Some(seat) = self.take_free() {
                return seat;
            }
            freed.await;
        }
    }

    /// Closes several at a time: one by one, each new connection would wait until another task has run.
    fn make_room(&self, taken: &mut Taken) {
        let most = (self.0.limits.seats / 8).max(1);
        let leaving = taken.seats.values().filter(|(_, tell)| tell.is_none());
        let idle = most.saturating_sub(leaving.count());
        let idle = taken
            .seats
            .values_mut()
            .filter(|(life, tell)| tell.is_some() && life.under_way.load(Relaxed) == 0)
            .take(idle);
        for (_, tell) in idle {
            if let Some(tell) = tell.take() {
                // A connection that cannot be told is already closing.
                tell.send(()).unwrap_or_default();
            }
        }
    }

    fn take_free(&self) -> Option<Seat> {
        let mut taken = self.0.taken.lock().expect("no holder panics");
        if taken.seats.len() >= self.0.limits.seats {
            self.make_room(&mut taken);
            return None;
        }
        let life = Arc::new(Life {
            held_by_all: self.0.held.clone(),
            ..Life::default()
        });
        let (tell, told) = oneshot::channel();
        let number = taken.next;
        taken.next += 1;
        taken.seats.insert(number, (life.clone(), Some(tell)));
        Some(Seat {
            hall: self.0.clone(),
            number,
            life,
            told,
            timer: Box::pin(tokio::time::sleep(self.0.limits.idle)),
            seen: 0,
            ended: None,
        })
    }
}

/// One connection's slot, until dropped.
pub struct Seat {
    hall: Arc<Hall>,
    number: u64,
    life: Arc<Life>,
    told: oneshot::Receiver<()>,
    timer: Pin<Box<Sleep>>,
    /// The number of answered requests when the timer was last set.
    seen: usize,
    ended: Option<Ended>,
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Seat {
    /// A connection takes the slot, which may have been free for long: its time starts now.
    pub fn occupy(&mut self) {
        let idle = Instant::now() + self.hall.limits.idle;
        self.timer.as_mut().reset(idle);
    }

    /// Ready when the connection must close. Poll this whenever the connection is read.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        if let Some(ended) = self.ended {
            return Poll::Ready(ended);
        }
        if Pin::new(&mut self.told).poll(cx).is_ready() {
            return Poll::Ready(self.end(Ended::Yielded));
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let served = self.life.served.load(Relaxed);
            if !self.is_in_use() && served == self.seen {
                return Poll::Ready(self.end(Ended::Idle));
            }
            self.seen = served;
            let again = Instant::now() + self.hall.limits.idle;
            self.timer.as_mut().reset(again);
        }
        Poll::Pending
    }

    fn end(&mut self, why: Ended) -> Ended {
        *self.ended.insert(why)
    }

    /// Ends when the connection must close.
    pub async fn ended(&mut self) -> Ended {
        std::future::poll_fn(|cx| self.poll_ended(cx)).await
    }

    /// Records that the connection sent this many bytes.
    ///
    /// # Errors
    /// [`Ended::Overfull`] if this is too much, for the connection or for all together.
    pub fn charge(&mut self, bytes: usize) -> Result<(), Ended> {
        // Bytes after a complete request do not belong to another one: there is one at a time.
        if self.is_in_use() {
            return Ok(());
        }
        let own = self.life.held.fetch_add(bytes, Relaxed) + bytes;
        let all = self.hall.held.fetch_add(bytes, Relaxed) + bytes;
        if own > self.hall.limits.each || all > self.hall.limits.all {
            return Err(self.end(Ended::Overfull));
        }
        Ok(())
    }

    /// Whether a request of the connection is in progress.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.life.under_way.load(Relaxed) > 0
    }

    /// For the requests on this connection.
    #[must_use]
    pub fn requests(&self) -> Requests {
        Requests(self.life.clone())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.life.let_go();
        self.hall
            .taken
            .lock()
            .expect("no holder panics")
            .seats
            .remove(&self.number);
        self.hall.freed.notify_one();
    }
}

/// Where a connection's requests report.
#[derive(Clone, Debug)]
pub struct Requests(Arc<Life>);

impl Requests {
    /// A complete request has arrived; the connection is not idle until the value is dropped.
    #[must_use]
    pub fn begin(&self) -> UnderWay {
        self.0.under_way.fetch_add(1, Relaxed);
        UnderWay(self.0.clone())
    }
}

/// One request in progress.
#[derive(Debug)]
pub struct UnderWay(Arc<Life>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.let_go();
        self.0.served.fetch_add(1, Relaxed);
        self.0.under_way.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests;
