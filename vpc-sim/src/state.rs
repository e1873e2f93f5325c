//! What the APIs share: the world behind a lock, scripted faults, and the call log. Threads that follow the world wait
//! on it.
//!
//! Owns the locks. May use `world`, `time` and `ids`. Must not know an API or the fabric.

pub mod calls;
pub mod faults;
pub mod imds_faults;
pub mod imds_tokens;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    ops::{Deref, DerefMut},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use self::{calls::Call, faults::Faults, imds_faults::ImdsScript};
use crate::{time::clock::Clock, world::World};

/// Addresses by name. Names are in lower case and without the last dot.
pub type Names = BTreeMap<String, Vec<IpAddr>>;

#[derive(Debug)]
pub struct Shared {
    world: Mutex<World>,
    changed: Condvar,
    faults: Mutex<Faults>,
    calls: Mutex<Vec<Call>>,
    imds: Mutex<ImdsScript>,
    names: Mutex<Names>,
    /// While it is set, lists are answered from it.
    frozen: Mutex<Option<World>>,
    clock: Clock,
}

/// The world, locked. Dropping the guard wakes the threads that follow the world.
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

/// A test that panicked with a lock has already failed; the others can continue.
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

    /// The world at the current time, for external callers.
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

    /// The resolver's names in addition to the names of instances.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        lock(&self.names)
    }

    /// The world that lists show while they are frozen.
    pub fn frozen(&self) -> MutexGuard<'_, Option<World>> {
        lock(&self.frozen)
    }

    /// Notifies waiting threads that the world has changed.
    pub fn touch(&self) {
        self.changed.notify_all();
    }

    /// Sleeps until the world changes, a timer of the world is due, or `most` has passed.
    pub fn wait<'a>(&self, world: MutexGuard<'a, World>, most: Duration) -> MutexGuard<'a, World> {
        let due = world
            .next_deadline()
            .map_or(most, |at| at.saturating_sub(self.now()));
        let waited = self.changed.wait_timeout(world, due.min(most));
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}
