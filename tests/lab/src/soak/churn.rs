//! Pods that are added and deleted as runtimes and users do: once, twice, interrupted, or without a DEL.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use datapath::netns::Netns;
use proto::tombstone;
use serde_json::json;
use vpc_sim::random::Rng;

use super::shared_state::{LivePod, Purpose, SharedState, Site};
use crate::{
    node::{
        plugin::{Invocation, Outcome},
        sandbox_in,
    },
    traffic::ping::ping_once,
};

/// The maximum number of pods of one worker.
const MOST: u64 = 10;
/// CNI's "try again later": the only accepted refusal of an ADD here.
const TRY_AGAIN: u64 = 11;
/// The plugin's deadline, and the start of a process on a loaded machine.
const ADD_LIMIT: Duration = Duration::from_secs(60 + 10);
const DEL_LIMIT: Duration = Duration::from_secs(30 + 10);

struct Worker<'a> {
    site: &'a Site,
    shared: &'a SharedState,
    rng: Rng,
    name: String,
    made: u64,
    pods: Vec<Arc<LivePod>>,
    wanted: u64,
}

/// Adds and removes pods until the soak is over, and then removes its last ones.
pub(super) fn work(site: &Site, shared: &SharedState, seed: u64, worker: u64) {
    let of_worker = seed * 1000 + site.number as u64 * 100 + worker;
    let mut worker = Worker::new(site, shared, of_worker, &format!("w{worker}"));
    while !shared.over.wait(worker.rng.millis(50, 500)) {
        if let Err(error) = worker.step() {
            shared.violation(format!("the lab failed: {error}"));
        }
    }
    worker.clear();
}

/// Adds this many pods on each node and removes them again: when EC2 works again, none may be refused.
pub(super) fn fill(sites: &[Site], shared: &SharedState, pods: usize) {
    for site in sites {
        let mut worker = Worker::new(site, shared, 0, "last");
        for _ in 0..pods {
            if let Err(error) = worker.arrive() {
                shared.violation(format!("the lab failed: {error}"));
            }
        }
        if worker.pods.len() < pods {
            let placed = worker.pods.len();
            shared.violation(format!(
                "node {} accepted only {placed} of {pods} pods without faults",
                site.number
            ));
        }
        worker.clear();
    }
}

impl<'a> Worker<'a> {
    fn new(site: &'a Site, shared: &'a SharedState, seed: u64, name: &str) -> Self {
        Self {
            site,
            shared,
            rng: Purpose::Pods.stream(seed),
            name: format!("n{}-{name}", site.number),
            made: 0,
            pods: Vec::new(),
            wanted: MOST / 2,
        }
    }

    fn step(&mut self) -> io::Result<()> {
        // From nothing to all at once and back: the pool has to grow and shrink.
        if self.rng.percent(4) {
            self.wanted = *self.rng.pick(&[0, 1, MOST / 2, MOST]);
        }
        let missing = self.pods.len() < usize::try_from(self.wanted).unwrap_or(0);
        // Pods are replaced all the time, even if their number stays the same.
        let arrives = missing || (self.pods.is_empty() && self.rng.percent(10));
        match (arrives, self.rng.below(100)) {
            (_, 0..4) => self.nobody_leaves(),
            (true, 4..12) => self.half_arrives(),
            (true, 12..24) => self.arrives_twice(),
            (true, _) => self.arrive(),
            (false, 4..16) => self.end(),
            (false, 16..28) => self.leave(3),
            (false, 28..40) => self.leave(2),
            (false, _) => self.leave(1),
        }
    }

    fn sandbox(&mut self) -> io::Result<(String, Netns, PathBuf)> {
        self.made += 1;
        let id = format!("{}-{}", self.name, self.made);
        let (netns, path) = sandbox_in(&self.site.sandboxes, &id)?;
        Ok((id, netns, path))
    }

    fn invocation(&self, verb: &str, id: &str, netns: Option<&Path>) -> Invocation {
        Invocation::new(verb, id, netns, &self.site.socket)
    }

    fn arrive(&mut self) -> io::Result<()> {
        let (id, netns, path) = self.sandbox()?;
        let added = self
            .invocation("ADD", &id, Some(&path))
            .run(&self.site.netns)?;
        self.enter(id, netns, path, &added)
    }

    /// Like [`Self::arrive`], and once more while the first is in progress.
    fn arrives_twice(&mut self) -> io::Result<()> {
        let (id, netns, path) = self.sandbox()?;
        let add = self.invocation("ADD", &id, Some(&path));
        let (first, second) = thread::scope(|scope| {
            let second = scope.spawn(|| add.run(&self.site.netns));
            (
                add.run(&self.site.netns),
                second.join().expect("it does not panic"),
            )
        });
        let (first, second) = (first?, second?);
        self.shared.count(|tally| tally.repeated_adds += 1);
        let both = first.succeeded() && second.succeeded();
        if both && first.address() != second.address() {
            self.shared
                .violation(format!("{id} got two addresses: {first:?}, {second:?}"));
        }
        let told = if first.succeeded() { first } else { second };
        self.enter(id, netns, path, &told)
    }

    fn enter(
        &mut self,
        id: String,
        netns: Netns,
        path: PathBuf,
        added: &Outcome,
    ) -> io::Result<()> {
        self.judge_add(&id, added);
        if added.succeeded() {
            let pod = LivePod::new(id, netns, path, added.address());
            self.pods.push(self.shared.enter(pod));
            return Ok(());
        }
        // Like a runtime with a sandbox that could not be created.
        self.delete(&id, Some(&path), false)?;
        Netns::unbind(&path)
    }

    fn judge_add(&self, id: &str, added: &Outcome) {
        let mut reason = added.error_text();
        // Operands would make every refusal a separate reason.
        reason.retain(|c| !c.is_ascii_digit());
        self.shared.count(|tally| {
            tally.slowest_add = tally.slowest_add.max(added.took);
            if added.succeeded() {
                tally.adds += 1;
            } else {
                *tally.refused.entry(reason).or_default() += 1;
            }
        });
        if !added.succeeded() && added.error_code() != Some(TRY_AGAIN) {
            self.shared.violation(format!("ADD {id} failed: {added:?}"));
        }
        if added.took > ADD_LIMIT {
            self.shared
                .violation(format!("ADD {id} took {:?}", added.took));
        }
    }

    /// The runtime's deadline ends, or it is killed, and with it its plugin in the middle of an ADD. Then DEL follows,
    /// or only the end of the namespace.
    fn half_arrives(&mut self) -> io::Result<()> {
        let (id, netns, path) = self.sandbox()?;
        let patience = self.rng.millis(0, 12);
        let add = self.invocation("ADD", &id, Some(&path));
        if add.run_and_kill(&self.site.netns, patience)? {
            self.shared.count(|tally| tally.killed_adds += 1);
        }
        drop(netns);
        if self.rng.percent(50) {
            self.delete(&id, Some(&path), false)?;
        }
        Netns::unbind(&path)
    }

    fn pick(&mut self) -> Option<Arc<LivePod>> {
        (!self.pods.is_empty()).then(|| {
            let index = self.rng.index(self.pods.len());
            self.pods.swap_remove(index)
        })
    }

    /// DEL, this many times at once, one of them without a namespace.
    fn leave(&mut self, times: usize) -> io::Result<()> {
        let Some(pod) = self.pick() else {
            return Ok(());
        };
        self.shared.leave(&pod);
        let hasty = self.rng.percent(20);
        thread::scope(|scope| {
            let more: Vec<_> = (1..times)
                .map(|n| {
                    scope.spawn({
                        let (pod, this) = (&pod, &*self);
                        move || this.delete(&pod.id, (n == 1).then_some(pod.path.as_path()), hasty)
                    })
                })
                .collect();
            let first = self.delete(&pod.id, Some(&pod.path), hasty);
            let more = more
                .into_iter()
                .map(|t| t.join().expect("it does not panic"));
            first.and_then(|()| {
                more.collect::<io::Result<()>>()?;
                self.must_not_answer(&pod)
            })
        })?;
        self.shared
            .count(|tally| tally.repeated_dels += times as u64 - 1);
        Netns::unbind(&pod.path)
    }

    /// `hasty`: the runtime gives the plugin one second, so a missing daemon gets a tombstone.
    fn delete(&self, id: &str, netns: Option<&Path>, hasty: bool) -> io::Result<()> {
        let mut del = self.invocation("DEL", id, netns);
        if hasty {
            del = del.conf("deadlineSeconds", json!(1));
        }
        let deleted = del.run(&self.site.netns)?;
        self.shared.count(|tally| {
            tally.dels += 1;
            tally.slowest_del = tally.slowest_del.max(deleted.took);
        });
        if !deleted.succeeded() {
            self.shared
                .violation(format!("DEL {id} failed: {deleted:?}"));
        }
        if deleted.took > DEL_LIMIT {
            self.shared
                .violation(format!("DEL {id} took {:?}", deleted.took));
        }
        Ok(())
    }

    /// I7: a deleted pod's address must not answer, or a tombstone waits for the daemon.
    fn must_not_answer(&self, pod: &LivePod) -> io::Result<()> {
        let answers = || {
            let wait = Duration::from_millis(50);
            ping_once(&self.site.netns, pod.address, wait).map(|reply| reply.is_some())
        };
        // Twice, with the check for a tombstone in between: the daemon may be processing it at this moment.
        if answers()? && !self.has_tombstone(&pod.id)? && answers()? {
            let address = pod.address;
            self.shared
                .violation(format!("{address} of {} answers after its DEL", pod.id));
        }
        Ok(())
    }

    fn has_tombstone(&self, id: &str) -> io::Result<bool> {
        let directory = tombstone::directory(&self.site.socket);
        let found = loop {
            match tombstone::all(&directory) {
                // The daemon removed one between the list and the check.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                found => break found?,
            }
        };
        let mut keys = found.standing.iter().map(|(_, key)| key);
        Ok(keys.any(|key| key.container_id.as_str() == id))
    }

    /// The namespace ends without a DEL.
    fn end(&mut self) -> io::Result<()> {
        let Some(pod) = self.pick() else {
            return Ok(());
        };
        self.shared.leave(&pod);
        self.shared.count(|tally| tally.ended_without_del += 1);
        Netns::unbind(&pod.path)
    }

    /// A DEL for a sandbox that never existed.
    fn nobody_leaves(&mut self) -> io::Result<()> {
        self.made += 1;
        let id = format!("{}-{}", self.name, self.made);
        self.shared.count(|tally| tally.unknown_dels += 1);
        self.delete(&id, None, false)
    }

    fn clear(&mut self) {
        while !self.pods.is_empty() {
            if let Err(error) = self.leave(1) {
                self.shared.violation(format!("the lab failed: {error}"));
            }
        }
    }
}
