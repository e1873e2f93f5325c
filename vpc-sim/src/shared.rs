//! What the faces share: the world behind a lock, scripts, and the call log. Threads that follow the world wait on it.

use std::{
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    calls::Call, clock::Clock, dns::Names, faults::Faults, imds::ImdsScript, world::World,
};

#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    faults: Mutex<Faults>,
    calls: Mutex<Vec<Call>>,
    imds: Mutex<ImdsScript>,
    names: Mutex<Names>,
    /// While it is there, lists are answered from it.
    frozen: Mutex<Option<World>>,
    clock: Clock,
}

/// The world, locked. Whoever follows the world is woken when the guard goes.
#[derive(Debug)]
pub struct WorldGuard<'a> {
    guard: MutexGuard<'a, World>,
    shared: &'a Shared,
}

impl Deref for WorldGuard<'_> {
    type Target = World;

    fn deref(&self) -> &World {
        &self.guard
    }
}

impl DerefMut for WorldGuard<'_> {
    fn deref_mut(&mut self) -> &mut World {
        &mut self.guard
    }
}

impl Drop for WorldGuard<'_> {
    fn drop(&mut self) {
        self.shared.touch();
    }
}

/// A test that panicked while it held a lock has failed already; the others may go on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(world: World) -> Self {
        Self {
            world: Mutex::new(world),
            changed: Condvar::new(),
            faults: Mutex::default(),
            calls: Mutex::default(),
            imds: Mutex::default(),
            names: Mutex::default(),
            frozen: Mutex::default(),
            clock: Clock::start(),
        }
    }

    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        lock(&self.world)
    }

    /// The world as of now, for callers outside.
    pub fn watched_world(&self) -> WorldGuard<'_> {
        let mut guard = self.world();
        guard.advance(self.now());
        WorldGuard {
            guard,
            shared: self,
        }
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }

    pub fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        lock(&self.calls)
    }

    pub fn imds(&self) -> MutexGuard<'_, ImdsScript> {
        lock(&self.imds)
    }

    /// What the VPC's resolver knows beside the names of instances.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// The world that lists show while they are frozen.
    pub fn frozen(&self) -> MutexGuard<'_, Option<World>> {
        lock(&self.frozen)
    }

    /// Tells whoever waits that the world is another.
    pub fn touch(&self) {
        self.changed.notify_all();
    }

    /// Sleeps until somebody touched the world, it has something due, or `most` is over.
    pub fn wait<'a>(&self, world: MutexGuard<'a, World>, most: Duration) -> MutexGuard<'a, World> {
        let due = world
            .next_deadline()
            .map_or(most, |at| at.saturating_sub(self.now()));
        let waited = self.changed.wait_timeout(world, due.min(most));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
