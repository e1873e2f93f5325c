//! The events on the node, and how the runtime handles a daemon that dies: a failed or unanswered ADD is deleted and
//! tried again with a new sandbox, a DEL is repeated until it is answered.

use std::{fs::File, path::PathBuf, sync::Arc, time::Duration};

use ipamd::{
    runtime::supervise::Detached,
    sandbox::sandboxes::{Add, Sandboxes},
    state::store::Record,
};
use nettypes::{Asked, HostPort, Transport};
use planner::{Mono, Pod, Sandbox};
use proto::handover::Handed;
use tokio::time::sleep;

use super::daemon::{self, Serving};
use crate::{
    oracle,
    scenario::BOOT,
    state::{Shared, State},
    surroundings::{pod_network::PodNetwork, pods::until},
};

/// Faults stop this long after the first daemon's start.
pub const CHAOS: Duration = Duration::from_secs(120);
/// More than one ENI of the type can hold.
const PODS: u32 = 5;
const ADD_LIMIT: Duration = Duration::from_secs(60);
const AGAIN: Duration = Duration::from_secs(2);
const MINUTE: Duration = Duration::from_secs(60);

/// Runs the node's life to its end.
pub async fn run(shared: Arc<Shared>, dir: PathBuf) {
    until(&shared, BOOT).await;
    // One task, because a store belongs to one thread.
    let serving = Serving::default();
    tokio::select! {
        biased;
        () = daemon::keep_one(shared.clone(), dir, serving.clone()) => {}
        () = live(shared, serving) => {}
    }
}

async fn live(shared: Arc<Shared>, serving: Serving) {
    let tasks = Detached::default();
    let runtime = Runtime {
        shared: shared.clone(),
        serving,
    };
    let mut pods = Vec::new();
    for number in 0..PODS {
        let runtime = runtime.clone();
        // In pairs, so that ADDs overlap with growth and with each other.
        sleep(Duration::from_secs(u64::from(number / 2))).await;
        pods.push(tasks.spawn(async move { runtime.place(number).await }));
    }
    let mut placed = Vec::new();
    for pod in pods {
        placed.push(pod.await.expect("no pod panics"));
    }
    sleep(Duration::from_secs(20)).await;
    let leaving: Vec<_> = placed
        .into_iter()
        .map(|sandbox| {
            let runtime = runtime.clone();
            tasks.spawn(async move { runtime.delete(sandbox).await })
        })
        .collect();
    for pod in leaving {
        pod.await.expect("no pod panics");
    }
    until(&shared, BOOT + CHAOS).await;
    shared.with(|state, now| state.calm(now));
    settle(&shared, &runtime.serving).await;
}

/// What the daemon must achieve in the end (I4, I9), and that nothing of any pod is left.
async fn settle(shared: &Shared, serving: &Serving) {
    // Work that the faults delayed is done, and may be interrupted too.
    until(shared, shared.now() + MINUTE * 5).await;
    shared.with(|state, _| state.points.close());
    let calm = shared.now();
    until(shared, calm + MINUTE * 10).await;
    let pool = shared.with(|state, _| state.pool.clone());
    let snapshot = match pool {
        Some(pool) => pool.snapshot().await.ok(),
        None => None,
    };
    let Some(snapshot) = snapshot else {
        return shared.with(|state, now| state.fail(now, "I8: the daemon serves", String::new()));
    };
    shared.with(|state, now| {
        let leaks = oracle::leaks(state, &snapshot, now);
        if let Some(leak) = leaks.first() {
            state.fail(now, "I4: nothing leaks", leak.clone());
        }
        let (lent, ports) = serving.get().map_or((0, 0), |(sandboxes, _)| {
            (sandboxes.egress_in_use(), sandboxes.ports_in_use())
        });
        if lent + ports > 0 {
            let what = format!(
                "{lent} addresses of the other family and {ports} host ports of deleted pods are left"
            );
            state.fail(now, "I4: nothing leaks", what);
        }
        let held = snapshot.totals.assigned + snapshot.totals.reserved;
        if held > 0 || !state.kernel.links.is_empty() {
            let links = state.kernel.links.len();
            let what = format!("{held} addresses and {links} links of deleted pods are left");
            state.fail(now, "I4: nothing leaks", what);
        }
    });
    // The search for leaks of a previous process comes minutes after a start.
    until(shared, calm + MINUTE * 20).await;
    let before = shared.with(|state, _| state.budget.total());
    sleep(MINUTE * 60).await;
    shared.with(|state, now| {
        let made = state.budget.total() - before;
        if made > 0 {
            let what = format!("{made} calls in an idle hour");
            state.fail(now, "I9: an idle node makes no EC2 call", what);
        }
    });
}

/// The container runtime's side.
#[derive(Clone, Debug)]
struct Runtime {
    shared: Arc<Shared>,
    serving: Serving,
}

impl Runtime {
    /// The serving daemon, when there is one.
    async fn daemon(&self) -> (Sandboxes<PodNetwork>, u64) {
        loop {
            let found = self.serving.get();
            if let Some(found) = found.filter(|(_, generation)| self.shared.alive(*generation)) {
                return found;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// The answer, unless the daemon dies first or at the same moment: then it is lost.
    async fn heard<T>(&self, generation: u64, answer: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.shared.outlived(generation) => None,
            answer = answer => Some(answer).filter(|_| self.shared.alive(generation)),
        }
    }

    async fn place(&self, number: u32) -> Sandbox {
        for attempt in 0_u32.. {
            let sandbox = Sandbox {
                network: "hawser".to_owned(),
                container_id: format!("p{number}-{attempt}"),
                ifname: "eth0".to_owned(),
            };
            let (daemon, generation) = self.daemon().await;
            let asked = self.shared.now();
            let times = (asked, asked + ADD_LIMIT);
            let answer = self
                .heard(generation, daemon.add(request(&sandbox, times.1)))
                .await;
            let refusal = match answer {
                Some(Ok(record)) => {
                    self.shared.with(|state, now| {
                        oracle::answered(state, &sandbox, times, None, now);
                        state.told(&record, now);
                    });
                    return sandbox;
                }
                Some(Err(refusal)) => Some(refusal.to_string()),
                None => None,
            };
            if refusal.is_some() {
                let note =
                    |state: &mut State, now| oracle::answered(state, &sandbox, times, refusal, now);
                self.shared.with(note);
            }
            self.delete(sandbox).await;
            sleep(AGAIN).await;
        }
        unreachable!("the attempts are an infinite iterator")
    }

    async fn delete(&self, sandbox: Sandbox) {
        let link = self
            .shared
            .with(|state, _| state.kernel.running.remove(&sandbox));
        loop {
            let (daemon, generation) = self.daemon().await;
            if let Some(Ok(())) = self.heard(generation, daemon.del(&sandbox, None)).await {
                break;
            }
            sleep(AGAIN).await;
        }
        self.shared
            .with(|state, now| state.gone(sandbox, link, now));
    }
}

/// The same pod at every attempt: its sandboxes overlap.
fn pod_of(sandbox: &Sandbox) -> &str {
    let id = &sandbox.container_id;
    id.split_once('-').map_or(id, |(pod, _)| pod)
}

/// A host port of the pod's own, which each of its sandboxes must get as soon as the one before is deleted.
fn asked(sandbox: &Sandbox) -> Asked {
    let number = pod_of(sandbox).trim_start_matches('p').parse();
    let port = number.map(|number: u16| HostPort {
        transport: Transport::Tcp,
        port: 8000 + number,
        address: None,
        pod_port: 80,
    });
    Asked {
        ports: port.into_iter().collect(),
        ..Asked::default()
    }
}

fn request(sandbox: &Sandbox, deadline: Duration) -> Add {
    // The kernel is simulated: any descriptors will do.
    let nothing = || File::open("/dev/null").expect("every system has it").into();
    Add {
        sandbox: sandbox.clone(),
        pod: Pod {
            namespace: Some("default".to_owned()),
            name: Some(pod_of(sandbox).to_owned()),
            uid: None,
        },
        deadline: Mono::from_epoch(deadline),
        veth_prefix: None,
        mtu: None,
        asked: asked(sandbox),
        handed: Handed {
            netns: nothing(),
            netlink: nothing(),
        },
    }
}

impl State {
    /// I6: a pod that gets its address must have it.
    fn told(&mut self, record: &Record, now: Duration) {
        let mut links = self.kernel.links.values();
        let link = links.find(|link| link.address == Some(record.address));
        let Some(link) = link.filter(|link| link.name == record.host_name) else {
            let what = format!("{} was assigned and has no route", record.address);
            return self.fail(now, "I6: ADD success means a complete datapath", what);
        };
        if record.egress.is_none() || link.egress != record.egress {
            let (told, made) = (record.egress, link.egress);
            let what = format!("{}: {told:?} was told, {made:?} was made", record.address);
            return self.fail(now, "I6: ADD success means a complete datapath", what);
        }
        self.kernel
            .running
            .insert(record.sandbox.clone(), link.ifindex);
    }

    /// I7: DEL was answered, so the address must be unreachable.
    fn gone(&mut self, sandbox: Sandbox, link: Option<u32>, now: Duration) {
        let routed = |index: &u32| {
            let link = self.kernel.links.get(index);
            link.is_some_and(|link| link.address.is_some())
        };
        if link.as_ref().is_some_and(routed) {
            let what = format!("{} still has a route", sandbox.container_id);
            self.fail(now, "I7: DEL success means unreachable", what);
        }
        self.kernel.deleted.push(sandbox);
    }
}
