//! The shared state of the soak's threads: which pod has which address, counters, and violations.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::AsFd,
    path::PathBuf,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use datapath::netns::Netns;
use vpc_sim::random::Rng;

use crate::node::Node;

/// The purpose of a stream of random numbers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Pods = 1,
    Packets,
    Ec2Faults,
    Restarts,
}

impl Purpose {
    pub const fn stream(self, seed: u64) -> Rng {
        Rng::new(seed, 100 + self as u64)
    }
}

#[expect(clippy::disallowed_methods, reason = "a soak runs in real time")]
pub(super) fn now() -> Instant {
    Instant::now()
}

/// A node, and what its pods' threads need of it while its daemon is restarted.
#[derive(Debug)]
pub(super) struct Site {
    pub number: usize,
    pub netns: Netns,
    pub socket: PathBuf,
    pub sandboxes: PathBuf,
    node: Mutex<Node>,
}

impl Site {
    pub fn new(number: usize, node: Node) -> io::Result<Self> {
        let again = node.netns().as_fd().try_clone_to_owned()?;
        Ok(Self {
            number,
            netns: Netns::from_fd(again).map_err(io::Error::other)?,
            socket: node.socket(),
            sandboxes: node.sandboxes(),
            node: Mutex::new(node),
        })
    }

    /// The node itself; locked by the thread that restarts its daemon.
    pub fn node(&self) -> MutexGuard<'_, Node> {
        lock(&self.node)
    }
}

/// A pod that answers.
#[derive(Debug)]
pub(super) struct LivePod {
    pub id: String,
    pub netns: Netns,
    pub path: PathBuf,
    pub address: IpAddr,
    /// Set before anything that may end its traffic.
    leaving: AtomicBool,
}

impl LivePod {
    pub const fn new(id: String, netns: Netns, path: PathBuf, address: IpAddr) -> Self {
        Self {
            id,
            netns,
            path,
            address,
            leaving: AtomicBool::new(false),
        }
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }
}

/// A measurement of a daemon. Sizes in KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub site: usize,
    /// The process of the daemon.
    pub pid: u32,
    /// Total resident memory.
    pub resident: u64,
    /// Resident private memory, not mapped from files.
    pub own: u64,
    pub descriptors: usize,
    /// Since the soak started.
    pub at: Duration,
}

/// Signals once, and wakes every sleeper.
#[derive(Debug, Default)]
pub(super) struct StopSignal {
    set: Mutex<bool>,
    woken: Condvar,
}

impl StopSignal {
    /// Sleeps for `most`, or until the signal; returns whether it was signalled.
    pub fn wait(&self, most: Duration) -> bool {
        let waited = self
            .woken
            .wait_timeout_while(lock(&self.set), most, |set| !*set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    pub fn set(&self) {
        *lock(&self.set) = true;
        self.woken.notify_all();
    }
}

/// What was done and what happened.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub adds: u64,
    /// Why ADDs were refused, and how often.
    pub refused: BTreeMap<String, u64>,
    pub repeated_adds: u64,
    pub killed_adds: u64,
    pub dels: u64,
    pub repeated_dels: u64,
    pub unknown_dels: u64,
    pub ended_without_del: u64,
    pub kills: u64,
    pub stops: u64,
    /// The number of windows of each kind of EC2 fault.
    pub faults: BTreeMap<&'static str, u64>,
    pub packets: u64,
    /// Packets between live pods that were not answered within a second, although the next ones were.
    pub lost: u64,
    pub slowest_add: Duration,
    pub slowest_del: Duration,
}

#[derive(Debug)]
pub(super) struct SharedState {
    pub over: StopSignal,
    pub cooldown: Duration,
    tally: Mutex<Tally>,
    live: Mutex<BTreeMap<IpAddr, Arc<LivePod>>>,
    /// When addresses were last released.
    left: Mutex<BTreeMap<IpAddr, Instant>>,
    samples: Mutex<Vec<Sample>>,
    violations: Mutex<Vec<String>>,
}

impl SharedState {
    pub fn new(cooldown: Duration) -> Self {
        Self {
            over: StopSignal::default(),
            cooldown,
            tally: Mutex::default(),
            live: Mutex::default(),
            left: Mutex::default(),
            samples: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    pub fn count(&self, what: impl FnOnce(&mut Tally)) {
        what(&mut lock(&self.tally));
    }

    pub fn tally(&self) -> Tally {
        lock(&self.tally).clone()
    }

    /// Reported immediately: an observer may want to inspect the running system.
    pub fn violation(&self, what: String) {
        stdout::errln!("violation: {what}");
        lock(&self.violations).push(what);
    }

    pub fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    pub fn sample(&self, sample: Sample) {
        lock(&self.samples).push(sample);
    }

    pub fn samples(&self) -> Vec<Sample> {
        lock(&self.samples).clone()
    }

    /// Adds a pod. Its address must be unused (I1), and its cooldown must be over (I3).
    pub fn enter(&self, pod: LivePod) -> Arc<LivePod> {
        let (pod, granted) = (Arc::new(pod), now());
        if let Some(other) = lock(&self.live).insert(pod.address, Arc::clone(&pod)) {
            self.violation(format!(
                "{} got {}, which {} has",
                pod.id, pod.address, other.id
            ));
        }
        let left = lock(&self.left).get(&pod.address).copied();
        // From before the DEL to after the ADD: at least the cooldown, however long both took.
        if left.is_some_and(|left| granted.duration_since(left) < self.cooldown) {
            self.violation(format!("{} was assigned during its cooldown", pod.address));
        }
        pod
    }

    /// Removes a pod from the list, before anything is done to it.
    pub fn leave(&self, pod: &LivePod) {
        pod.leaving.store(true, Ordering::SeqCst);
        lock(&self.live).remove(&pod.address);
        lock(&self.left).insert(pod.address, now());
    }

    pub fn live(&self) -> Vec<Arc<LivePod>> {
        lock(&self.live).values().cloned().collect()
    }

    /// Every address that any pod released.
    pub fn ever(&self) -> BTreeSet<IpAddr> {
        lock(&self.left).keys().copied().collect()
    }

    /// The current state in one line.
    pub fn line(&self, after: Duration) -> String {
        let (tally, live) = (self.tally(), self.live().len());
        format!(
            "{:>4} s: {live} pods live, {} ADDs, {} DELs, {} restarts, {} packets, {} lost, {} violations",
            after.as_secs(),
            tally.adds,
            tally.dels,
            tally.kills + tally.stops,
            tally.packets,
            tally.lost,
            self.violations().len()
        )
    }
}

/// A thread that panicked has already failed the soak; the others may continue.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
