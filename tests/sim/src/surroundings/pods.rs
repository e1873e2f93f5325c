//! The kubelet's side: pods that need an address, try again when they are refused, run for a while and end; and the
//! daemon's handlers as the pool sees them (wire, record, notify).

use std::{sync::Arc, time::Duration};

use ipamd::{
    pool::driver::{Granted, Pool},
    runtime::supervise::Detached,
};
use planner::{Event, Mono, Pod, Refusal, Sandbox};
use tokio::time::{sleep, sleep_until};

use crate::{
    faults::Fault,
    oracle,
    state::{Shared, State, ledger::Held, trace::digest},
};

/// Between two tries of one pod.
const BACK_OFF: Duration = Duration::from_secs(10);

/// The result of an ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Served,
    Refused,
    /// The daemon died; what it may have recorded must be deleted.
    Lost,
}

/// Everything about pods. Cloning gives another handle.
#[derive(Clone, Debug)]
pub struct Pods {
    shared: Arc<Shared>,
    tasks: Detached,
}

/// A pod to be created.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub number: u64,
    /// The time limit of one ADD.
    pub patience: Duration,
    pub life: Duration,
    /// The ADD is cancelled after this.
    pub called_off: Option<Duration>,
}

impl Pods {
    #[must_use]
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            tasks: Detached::default(),
        }
    }

    /// Creates pods until `end`.
    pub async fn arrive(&self, end: Duration) {
        let load = self.shared.with(|state, _| state.scenario.load.clone());
        let mut number = 0;
        loop {
            let (pause, count) = self.shared.with(|state, _| {
                let most = u64::try_from(load.every.as_millis()).unwrap_or(1) * 2;
                let pause = if number == 0 { most / 10 } else { most };
                (
                    state.pods.millis(1, pause.max(1)),
                    1 + state.pods.below(load.batch),
                )
            });
            sleep(pause).await;
            if self.shared.now() >= end {
                return;
            }
            for _ in 0..count {
                let full =
                    |state: &mut State, _| state.waiting + state.ledger.live.len() >= load.most;
                if self.shared.with(full) {
                    break;
                }
                number += 1;
                self.start(self.shared.with(|state, _| {
                    Wish {
                        number,
                        patience: state.pods.seconds(5, 60),
                        life: state
                            .pods
                            .millis(0, u64::try_from(load.life.as_millis()).unwrap_or(0)),
                        called_off: state
                            .pods
                            .percent(load.called_off)
                            .then(|| state.pods.millis(0, 4000)),
                    }
                }));
            }
        }
    }

    /// Starts one pod.
    pub fn start(&self, wish: Wish) {
        let pods = self.clone();
        drop(self.tasks.spawn(async move { pods.live(wish).await }));
    }

    async fn live(self, wish: Wish) {
        self.shared.with(|state, _| state.waiting += 1);
        let got = self.get(wish).await;
        self.shared.with(|state, _| state.waiting -= 1);
        if let Some(sandbox) = got {
            sleep(wish.life).await;
            self.del(&sandbox).await;
        }
    }

    /// Tries until there is an address, or until trying is pointless.
    async fn get(&self, wish: Wish) -> Option<Sandbox> {
        for attempt in 0_u64.. {
            let sandbox = Sandbox {
                network: "hawser".to_owned(),
                container_id: format!("p{}-{attempt}", wish.number),
                ifname: "eth0".to_owned(),
            };
            match self.add(&sandbox, wish).await {
                Outcome::Served => return Some(sandbox),
                Outcome::Refused if wish.called_off.is_some() => return None,
                Outcome::Refused => {}
                Outcome::Lost => self.del(&sandbox).await,
            }
            // The kubelet would try forever; a node that is too small would never be at rest.
            if self.shared.with(|state, _| state.closing) {
                return None;
            }
            let jitter = self.shared.with(|state, _| state.pods.millis(0, 5000));
            sleep(BACK_OFF + jitter).await;
        }
        None
    }

    /// The serving daemon, when there is one, and its generation.
    async fn daemon(&self, limit: Duration) -> Option<(Pool, u64)> {
        while self.shared.now() < limit {
            let serving = self
                .shared
                .with(|state, _| Some((state.pool.clone()?, state.generation)));
            if serving.is_some() {
                return serving;
            }
            sleep(Duration::from_millis(500)).await;
        }
        None
    }

    async fn add(&self, sandbox: &Sandbox, wish: Wish) -> Outcome {
        let asked = self.shared.now();
        let deadline = asked + wish.patience;
        let Some((pool, generation)) = self.daemon(deadline).await else {
            return Outcome::Refused;
        };
        self.shared.with(|state, now| {
            state.waiting += 1;
            state
                .trace
                .note(now, "ADD", &[digest(&sandbox.container_id)], || {
                    &sandbox.container_id
                });
        });
        let ask = pool.add(sandbox.clone(), Pod::default(), Mono::from_epoch(deadline));
        let called_off = wish.called_off.unwrap_or(Duration::from_secs(3600));
        // Dropping the request is what a DEL of a waiting sandbox does. Biased: an existing grant is taken.
        let answer = tokio::select! {
            biased;
            answer = ask => Some(answer),
            () = sleep(called_off) => None,
        };
        if !self.shared.alive(generation) {
            return Outcome::Lost;
        }
        let Some(answer) = answer else {
            self.shared
                .with(|state, now| state.count(Fault::CalledOff, now));
            return Outcome::Refused;
        };
        self.note(sandbox, (asked, deadline), &answer);
        match answer {
            Ok(grant) => self.wire(sandbox, grant, &pool, generation).await,
            Err(_) => Outcome::Refused,
        }
    }

    fn note(
        &self,
        sandbox: &Sandbox,
        times: (Duration, Duration),
        answer: &Result<Granted, Refusal>,
    ) {
        self.shared.with(|state, now| {
            let what = if answer.is_ok() { "granted" } else { "refused" };
            let operands = [
                digest(&sandbox.container_id),
                answer
                    .as_ref()
                    .map_or(0, |grant| digest(&grant.address().to_string())),
            ];
            state.trace.note(now, what, &operands, || match answer {
                Ok(grant) => format!(
                    "{} {} on {}",
                    sandbox.container_id,
                    grant.address(),
                    grant.eni()
                ),
                Err(why) => format!("{} {why}", sandbox.container_id),
            });
            if let Ok(grant) = answer {
                oracle::granted(state, sandbox, grant.address(), grant.eni(), now);
                let held = Held {
                    address: grant.address(),
                    eni: grant.eni().clone(),
                    gone: false,
                };
                state.ledger.granted.insert(sandbox.clone(), held);
            }
            let refusal = answer.as_ref().err().map(ToString::to_string);
            oracle::answered(state, sandbox, times, refusal, now);
        });
    }

    /// Kernel, then record, then the pool: the order of the real handler, with a possible crash between any two.
    async fn wire(
        &self,
        sandbox: &Sandbox,
        grant: Granted,
        pool: &Pool,
        generation: u64,
    ) -> Outcome {
        let (takes, fails) = self.shared.with(|state, now| {
            let takes = state.pods.millis(1, 30);
            (takes, state.strikes(Fault::WireFails, now))
        });
        sleep(takes).await;
        if !self.shared.alive(generation) {
            return Outcome::Lost;
        }
        if fails {
            self.shared.with(|state, now| {
                state.count(Fault::WireFails, now);
                state.ledger.granted.remove(sandbox);
            });
            pool.tell(Event::Unwired {
                sandbox: sandbox.clone(),
            })
            .await;
            return Outcome::Refused;
        }
        self.shared.with(|state, _| {
            state.ledger.granted.remove(sandbox);
            let held = Held {
                address: grant.address(),
                eni: grant.eni().clone(),
                gone: false,
            };
            state.ledger.live.insert(sandbox.clone(), held);
        });
        sleep(Duration::from_millis(1)).await;
        if !self.shared.alive(generation) {
            return Outcome::Lost;
        }
        pool.tell(Event::Wired {
            sandbox: sandbox.clone(),
        })
        .await;
        Outcome::Served
    }

    /// DEL, repeated until a daemon completes it.
    async fn del(&self, sandbox: &Sandbox) {
        let known = self
            .shared
            .with(|state, _| state.ledger.live.contains_key(sandbox));
        let Some((pool, generation)) = self.daemon(Duration::MAX).await.filter(|_| known) else {
            return;
        };
        let freed = self.shared.with(|state, now| {
            let until = now + state.scenario.config.cooldown;
            state
                .trace
                .note(now, "DEL", &[digest(&sandbox.container_id)], || {
                    &sandbox.container_id
                });
            state.ledger.release(sandbox, until)
        });
        sleep(Duration::from_millis(1)).await;
        if freed && self.shared.alive(generation) {
            pool.tell(Event::Left {
                sandbox: sandbox.clone(),
            })
            .await;
        }
    }
}

/// Waits until the run's clock reaches `moment`.
pub async fn until(shared: &Shared, moment: Duration) {
    sleep_until(shared.epoch() + moment).await;
}
