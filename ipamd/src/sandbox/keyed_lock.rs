//! One operation at a time per sandbox, and a way to cancel a waiting one. Knows nothing of the operations.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, Weak},
};

use planner::Sandbox;
use tokio::sync::{OwnedMutexGuard, watch};

#[derive(Debug, Default)]
struct Entry {
    mutex: Arc<tokio::sync::Mutex<()>>,
    /// How often operations on this sandbox were cancelled.
    cancelled: watch::Sender<u64>,
}

/// The running operation of each sandbox.
#[derive(Debug, Default)]
pub struct KeyedLock {
    /// Dead entries are removed when a new one is added, so the map stays as small as the number of operations in
    /// progress.
    entries: Mutex<HashMap<Sandbox, Weak<Entry>>>,
}

/// The right to work on one sandbox, until dropped.
#[derive(Debug)]
pub struct Guard {
    /// Changed since its holder was created: the holder is cancelled.
    cancelled: watch::Receiver<u64>,
    _guard: OwnedMutexGuard<()>,
    _entry: Arc<Entry>,
}

impl KeyedLock {
    /// Waits until no other operation works on `sandbox`; first come, first served.
    pub async fn lock(&self, sandbox: &Sandbox) -> Guard {
        let entry = self.entry(sandbox);
        // Subscribed before the wait: a DEL that arrives while an ADD is still queued cancels this ADD too.
        let cancelled = entry.cancelled.subscribe();
        let guard = entry.mutex.clone().lock_owned().await;
        Guard {
            cancelled,
            _guard: guard,
            _entry: entry,
        }
    }

    /// Cancels current and waiting operations on `sandbox`. Later operations are not affected: a DEL must not cancel an
    /// ADD that follows it.
    pub fn cancel(&self, sandbox: &Sandbox) {
        let entry = self
            .entries
            .lock()
            .expect("no holder panics")
            .get(sandbox)
            .and_then(Weak::upgrade);
        if let Some(entry) = entry {
            entry.cancelled.send_modify(|times| *times += 1);
        }
    }

    fn entry(&self, sandbox: &Sandbox) -> Arc<Entry> {
        let mut entries = self.entries.lock().expect("no holder panics");
        if let Some(entry) = entries.get(sandbox).and_then(Weak::upgrade) {
            return entry;
        }
        if entries.len() >= 64 && entries.len() == entries.capacity() {
            entries.retain(|_, entry| entry.strong_count() > 0);
        }
        let entry = Arc::new(Entry::default());
        entries.insert(sandbox.clone(), Arc::downgrade(&entry));
        entry
    }
}

impl Guard {
    /// Ends when this operation is cancelled.
    pub async fn cancelled(&mut self) {
        // Fails only if the entry is gone, and this guard keeps it alive.
        self.cancelled.changed().await.unwrap_or_default();
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
    async fn holders_exclude_each_other_per_sandbox_only() {
        let locks = KeyedLock::default();
        let first = locks.lock(&sandbox("a")).await;
        let soon = Duration::from_millis(1);
        assert!(timeout(soon, locks.lock(&sandbox("a"))).await.is_err());
        assert!(timeout(soon, locks.lock(&sandbox("b"))).await.is_ok());
        drop(first);
        assert!(timeout(soon, locks.lock(&sandbox("a"))).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn cancellation_reaches_holders_and_waiters_but_no_later_ones() {
        let locks = KeyedLock::default();
        let mut working = locks.lock(&sandbox("a")).await;
        let (a, soon) = (sandbox("a"), Duration::from_millis(1));
        let mut waiting = Box::pin(locks.lock(&a));
        assert!(timeout(soon, waiting.as_mut()).await.is_err());
        locks.cancel(&a);
        working.cancelled().await;
        drop(working);
        let mut waited = waiting.await;
        waited.cancelled().await;
        drop(waited);
        let mut later = locks.lock(&a).await;
        assert!(timeout(soon, later.cancelled()).await.is_err());
    }

    #[tokio::test]
    async fn finished_sandboxes_leave_no_trace() {
        let locks = KeyedLock::default();
        for n in 0..10_000 {
            drop(locks.lock(&sandbox(&n.to_string())).await);
        }
        assert!(locks.entries.lock().unwrap().len() < 512);
    }
}
