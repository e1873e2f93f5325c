//! One operation at a time per sandbox, and a way to cancel a waiting one. Knows nothing of the operations.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use planner::Sandbox;
use tokio::sync::{OwnedMutexGuard, watch};

#[derive(Debug, Default)]
struct Seat {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How often operations on this sandbox were cancelled.
    called_off: watch::Sender<u64>,
}

/// The running operation of each sandbox.
#[derive(Debug, Default)]
pub struct Busy {
    /// Dead entries are removed when a new one is added, so the map stays as small as the number of operations in
    /// progress.
    seats: Mutex<HashMap<Sandbox, Weak<Seat>>>,
}

/// The right to work on one sandbox, until dropped.
#[derive(Debug)]
pub struct Turn {
    /// Changed since its holder was created: the holder is cancelled.
    called_off: watch::Receiver<u64>,
    _guard: OwnedMutexGuard<()>,
    _seat: Arc<Seat>,
}

impl Busy {
    /// Waits until no other operation works on `sandbox`; first come, first served.
    pub async fn turn(&self, sandbox: &Sandbox) -> Turn {
        let seat = self.seat(sandbox);
        // Subscribed before the wait: a DEL that arrives while an ADD is still queued cancels this ADD too.
        let called_off = seat.called_off.subscribe();
        let guard = seat.turn.clone().lock_owned().await;
        Turn {
            called_off,
            _guard: guard,
            _seat: seat,
        }
    }

    /// Cancels current and waiting operations on `sandbox`. Later operations are not affected: a DEL must not cancel an
    /// ADD that follows it.
    pub fn call_off(&self, sandbox: &Sandbox) {
        let seat = self
            .seats
            .lock()
            .expect("no holder panics")
            .get(sandbox)
            .and_then(Weak::upgrade);
        if let Some(seat) = seat {
            seat.called_off.send_modify(|times| *times += 1);
        }
    }

    fn seat(&self, sandbox: &Sandbox) -> Arc<Seat> {
        let mut seats = self.seats.lock().expect("no holder panics");
        if let Some(seat) = seats.get(sandbox).and_then(Weak::upgrade) {
            return seat;
        }
        if seats.len() >= 64 && seats.len() == seats.capacity() {
            seats.retain(|_, seat| seat.strong_count() > 0);
        }
        let seat = Arc::new(Seat::default());
        seats.insert(sandbox.clone(), Arc::downgrade(&seat));
        seat
    }
}

impl Turn {
    /// Ends when this operation is cancelled.
    pub async fn called_off(&mut self) {
        // Fails only if the entry is gone, and this guard keeps it alive.
        self.called_off.changed().await.unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    fn sandbox(id: &str) -> Sandbox {
        Sandbox {
            network: "n".into(),
            container_id: id.into(),
            ifname: "eth0".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn turns_exclude_each_other_per_sandbox_only() {
        let busy = Busy::default();
        let first = busy.turn(&sandbox("a")).await;
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, busy.turn(&sandbox("a"))).await.is_err());
        assert!(timeout(soon, busy.turn(&sandbox("b"))).await.is_ok());
        drop(first);
        assert!(timeout(soon, busy.turn(&sandbox("a"))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn calling_off_reaches_who_works_or_waits_and_no_later_one() {
        let busy = Busy::default();
        let mut working = busy.turn(&sandbox("a")).await;
        let (a, soon) = (sandbox("a"), Duration::from_millis(1));
        let mut waiting = Box::pin(busy.turn(&a));
        assert!(timeout(soon, waiting.as_mut()).await.is_err());
        busy.call_off(&a);
        working.called_off().await;
        drop(working);
        let mut waited = waiting.await;
        waited.called_off().await;
        drop(waited);
        let mut later = busy.turn(&a).await;
        assert!(timeout(soon, later.called_off()).await.is_err());
    }

    #[tokio::test]
    async fn finished_sandboxes_leave_no_trace() {
        let busy = Busy::default();
        for n in 0..10_000 {
            drop(busy.turn(&sandbox(&n.to_string())).await);
        }
        assert!(busy.seats.lock().unwrap().len() < 512);
    }
}
