//! One operation at a time per sandbox, and a way to call a waiting one off. Knows nothing of what the operations do.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use planner::Sandbox;
use tokio::sync::{Notify, OwnedMutexGuard};

#[derive(Debug, Default)]
struct Seat {
    turn: Arc<tokio::sync::Mutex<()>>,
    called_off: Notify,
}

/// Who is at work on which sandbox.
#[derive(Debug, Default)]
pub struct Busy {
    /// Dead entries are swept when a new seat is made, so the map stays as small as the work in flight.
    seats: Mutex<HashMap<Sandbox, Weak<Seat>>>,
}

/// The right to work on one sandbox, until dropped.
#[derive(Debug)]
pub struct Turn {
    seat: Arc<Seat>,
    _guard: OwnedMutexGuard<()>,
}

impl Busy {
    /// Waits until nobody else works on `sandbox`; first come, first served.
    pub async fn turn(&self, sandbox: &Sandbox) -> Turn {
        let seat = self.seat(sandbox);
        let guard = seat.turn.clone().lock_owned().await;
        Turn {
            seat,
            _guard: guard,
        }
    }

    /// Tells whoever works on `sandbox` now that its result is no longer wanted.
    pub fn call_off(&self, sandbox: &Sandbox) {
        let seat = self
            .seats
            .lock()
            .expect("no holder panics")
            .get(sandbox)
            .and_then(Weak::upgrade);
        if let Some(seat) = seat {
            // Wakes only who listens at this moment: a DEL must not call off an ADD that comes after it.
            seat.called_off.notify_waiters();
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
    /// Ends when somebody calls this work off.
    pub async fn called_off(&self) {
        self.seat.called_off.notified().await;
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
    async fn calling_off_reaches_the_one_at_work_and_no_later_one() {
        let busy = Busy::default();
        let turn = busy.turn(&sandbox("a")).await;
        let mut waiting = Box::pin(turn.called_off());
        assert!(timeout(Duration::ZERO, waiting.as_mut()).await.is_err());
        busy.call_off(&sandbox("a"));
        waiting.await;
        drop(turn);
        let later = busy.turn(&sandbox("a")).await;
        assert!(
            timeout(Duration::from_millis(1), later.called_off())
                .await
                .is_err()
        );
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
