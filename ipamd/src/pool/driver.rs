//! The task that owns the planner: the only writer of the pool's state.
//!
//! It sends events to the planner and starts the planner's commands. It waits for nothing: EC2 calls and host work run
//! in other tasks and come back as events, so a slow call delays nothing else.
//!
//! May use `ec2`, `host`, `state`, `runtime` and `telemetry`. Must not know the verbs.

mod intents;

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use planner::{
    Answer, Command, EniClass, EniId, EniIndex, Event, Failure, HostClaim, Mono, Observed,
    Obstacle, Op, Planner, Pod, Refusal, Sandbox, Ticket, command::ConfigureEni,
    placement::SubnetList,
};
use tokio::sync::{mpsc, oneshot, watch};

use super::restorable;
use crate::{
    ec2::executor::Executor,
    host::seam::EniHost,
    runtime::{clock::Clock, supervise::Detached, worker::Worker},
    state::store::Store,
    telemetry::history::History,
};

/// The maximum number of queued requests; callers wait if the queue is full.
const QUEUE: usize = 4096;

/// What an ADD gets from the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    New(Grant),
    /// The sandbox's network is set up already, so neither `Wired` nor `Unwired` follows.
    Again {
        address: IpAddr,
        eni: EniId,
    },
}

impl Granted {
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        match self {
            Self::New(Grant { address, .. }) | Self::Again { address, .. } => *address,
        }
    }

    #[must_use]
    pub const fn eni(&self) -> &EniId {
        match self {
            Self::New(Grant { eni, .. }) | Self::Again { eni, .. } => eni,
        }
    }
}

/// A new address for one sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub address: IpAddr,
    pub eni: EniId,
    pub index: EniIndex,
    /// What delayed the address.
    pub waited_for: Option<Obstacle>,
}

enum Message {
    Add {
        sandbox: Sandbox,
        pod: Pod,
        deadline: Mono,
        reply: oneshot::Sender<Result<Granted, Refusal>>,
    },
    Event(Event),
    Snapshot(oneshot::Sender<planner::Snapshot>),
}

/// A handle for the pool.
#[derive(Clone, Debug)]
pub struct Pool {
    messages: mpsc::Sender<Message>,
    changes: watch::Receiver<()>,
    clock: Clock,
}

/// The pool's task has ended: the daemon is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address pool has shut down")]
pub struct Closed;

impl Pool {
    /// Requests an address and waits for it until `deadline`.
    ///
    /// # Errors
    /// The planner's refusal; [`Refusal::Stopping`] if the pool has ended.
    pub async fn add(
        &self,
        sandbox: Sandbox,
        pod: Pod,
        deadline: Mono,
    ) -> Result<Granted, Refusal> {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .messages
            .send(Message::Add {
                sandbox,
                pod,
                deadline,
                reply,
            })
            .await;
        sent.map_err(|_| Refusal::Stopping)?;
        answer.await.unwrap_or(Err(Refusal::Stopping))
    }

    /// The pool's clock.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.clock.now()
    }

    /// Sends an event to the pool.
    pub async fn tell(&self, event: Event) {
        // If the pool has ended, it has no state to update.
        drop(self.messages.send(Message::Event(event)).await);
    }

    /// Marked changed after every event that the planner has handled; closed when the pool ends.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// The current state of the pool.
    ///
    /// # Errors
    /// [`Closed`] if the pool has ended.
    pub async fn snapshot(&self) -> Result<planner::Snapshot, Closed> {
        let (reply, answer) = oneshot::channel();
        self.messages
            .send(Message::Snapshot(reply))
            .await
            .map_err(|_| Closed)?;
        answer.await.map_err(|_| Closed)
    }
}

/// What a restarted daemon needs of the pool, in addition to its sandboxes.
#[derive(Debug)]
pub struct Kept {
    pub enis: watch::Receiver<Vec<Observed>>,
    /// What EC2 last said about subnets.
    pub subnets: watch::Receiver<SubnetList>,
    /// The last known class of the node's ENIs. `None` until it changes.
    pub class: watch::Receiver<Option<EniClass>>,
}

/// The task's own side: planner, effects, and pending answers.
pub struct Driver<H> {
    planner: Planner,
    executor: Executor,
    host: H,
    detached: Detached,
    clock: Clock,
    messages: mpsc::Receiver<Message>,
    /// For the results of the work that it starts.
    handle: Pool,
    next_ticket: u64,
    /// Where intents are written before their calls; a simulation may have none.
    journal: Option<Worker<Store>>,
    /// Where decisions are recorded, for humans; a simulation has none.
    history: Option<Arc<History>>,
    /// The pool's ENIs, for the checkpoint.
    enis: watch::Sender<Vec<Observed>>,
    /// What EC2 said about subnets, for the checkpoint.
    subnets: watch::Sender<SubnetList>,
    /// The last known class of the node's ENIs, for the checkpoint.
    class: watch::Sender<Option<EniClass>>,
    changes: watch::Sender<()>,
    /// The number of addresses that EC2 does not confirm, as last logged.
    quarantined: u32,
    /// Addresses that the host keeps from pods, as of the last log line.
    claimed: u32,
    waiting: BTreeMap<Ticket, oneshot::Sender<Result<Granted, Refusal>>>,
    /// ENIs that the host was told to configure, for their removal.
    configured: BTreeMap<EniId, ConfigureEni>,
}

impl<H> std::fmt::Debug for Driver<H> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

impl<H: EniHost> Driver<H> {
    #[must_use]
    pub fn new(
        planner: Planner,
        executor: Executor,
        host: H,
        detached: Detached,
        clock: Clock,
    ) -> (Pool, Self) {
        let (sender, messages) = mpsc::channel(QUEUE);
        let (changes, seen) = watch::channel(());
        let handle = Pool {
            messages: sender,
            changes: seen,
            clock,
        };
        let driver = Self {
            planner,
            executor,
            host,
            detached,
            clock,
            messages,
            handle: handle.clone(),
            next_ticket: 0,
            journal: None,
            history: None,
            enis: watch::Sender::default(),
            subnets: watch::Sender::default(),
            class: watch::Sender::default(),
            changes,
            quarantined: 0,
            claimed: 0,
            waiting: BTreeMap::new(),
            configured: BTreeMap::new(),
        };
        (handle, driver)
    }

    /// Writes intents to `journal`.
    #[must_use]
    pub fn with_journal(self, journal: Worker<Store>) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    /// Records decisions in `history`.
    #[must_use]
    pub fn with_history(self, history: Arc<History>) -> Self {
        Self {
            history: Some(history),
            ..self
        }
    }

    /// What a restarted daemon needs, whenever it changes.
    #[must_use]
    pub fn kept(&self) -> Kept {
        Kept {
            enis: self.enis.subscribe(),
            subnets: self.subnets.subscribe(),
            class: self.class.subscribe(),
        }
    }

    /// Runs until the daemon sends [`Event::Node`] with `stopping` and drops the task.
    pub async fn run(mut self) {
        loop {
            let now = self.clock.now();
            let timer = self
                .planner
                .next_deadline()
                .map_or(Duration::from_secs(3600), |at| at.since(now));
            // Both arms are cancel-safe: `recv` loses no message and `sleep` has no state. Biased, so that a flood of
            // timers cannot starve requests. Requests cannot starve timers, because any event also handles a due Tick.
            let event = tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => self.take(message),
                    None => return,
                },
                () = tokio::time::sleep(timer) => Some(Event::Tick),
            };
            if let Some(event) = event {
                self.feed(event);
            }
        }
    }

    fn take(&mut self, message: Message) -> Option<Event> {
        match message {
            Message::Add {
                sandbox,
                pod,
                deadline,
                reply,
            } => {
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.waiting.insert(ticket, reply);
                Some(Event::Add {
                    ticket,
                    sandbox,
                    pod,
                    deadline,
                })
            }
            Message::Event(event) => Some(event),
            Message::Snapshot(reply) => {
                // The caller may have gone away.
                drop(reply.send(self.planner.snapshot(self.clock.now())));
                None
            }
        }
    }

    fn feed(&mut self, event: Event) {
        let now = self.clock.now();
        // Only these change the node's ENIs; an ADD or DEL need not pay for the comparison.
        let changes_enis = matches!(
            event,
            Event::Answered { .. } | Event::Inventory(_) | Event::Restore(_) | Event::Class(_)
        );
        match &event {
            Event::Answered {
                result: Ok(Answer::Subnets(list)),
                ..
            } => drop(self.subnets.send_replace(list.clone())),
            Event::Class(Ok(class)) => drop(self.class.send_replace(Some(class.clone()))),
            _ => {}
        }
        let mut commands = self.planner.on(event, now);
        let due = self.planner.next_deadline().is_some_and(|at| at <= now);
        if due {
            commands.extend(self.planner.on(Event::Tick, now));
        }
        // Before the EC2 call: a daemon that starts in between must not assign an address that was just returned.
        if changes_enis || commands.iter().any(gives_back) {
            self.publish_enis();
        }
        if let Some(history) = &self.history {
            let why = || self.planner.snapshot(now).decision.why;
            history.decided(now, why, &commands);
        }
        for command in commands {
            self.start(command);
        }
        self.note_claims();
        self.note_quarantine();
        self.changes.send_replace(());
    }

    fn publish_enis(&self) {
        let now = restorable::observed(&self.planner.snapshot(self.clock.now()));
        self.enis.send_if_modified(|known| {
            let changed = *known != now;
            *known = now;
            changed
        });
    }

    /// Logs each change once: the host keeps an address of the pool from pods, or no longer does.
    fn note_claims(&mut self) {
        let now = self.planner.totals().claimed;
        let before = std::mem::replace(&mut self.claimed, now);
        if now == before {
            return;
        }
        if now < before {
            tracing::info!(
                addresses = now,
                before,
                "the host keeps fewer addresses of the pool from pods"
            );
            return;
        }
        let snapshot = self.planner.snapshot(self.clock.now());
        let all = snapshot.enis.iter().flat_map(|eni| &eni.addresses);
        for view in all {
            let container = view
                .sandbox
                .as_ref()
                .map(|sandbox| sandbox.container_id.as_str());
            match view.claim {
                Some(HostClaim::Own) => tracing::warn!(
                    address = %view.address,
                    container,
                    "the node itself uses an address of the pool; no pod gets it: find out what configured it on the host"
                ),
                Some(HostClaim::Rule { priority }) => tracing::warn!(
                    address = %view.address,
                    container,
                    priority,
                    "an ip rule of another program decides the way of an address of the pool; no pod gets it: find out \
                     which program added it"
                ),
                None => {}
            }
        }
    }

    /// Logs each change once: EC2 no longer confirms an address, or confirms it again.
    fn note_quarantine(&mut self) {
        // Those that the host keeps from pods are logged apart.
        let totals = self.planner.totals();
        let now = totals.quarantined.saturating_sub(totals.claimed);
        let before = std::mem::replace(&mut self.quarantined, now);
        if now > before {
            tracing::warn!(
                addresses = now,
                before,
                "EC2 does not confirm addresses of this node; they are quarantined"
            );
        } else if now < before {
            tracing::info!(addresses = now, before, "EC2 confirms addresses again");
        }
    }

    fn start(&mut self, command: Command) {
        match command {
            Command::Grant {
                ticket,
                sandbox,
                address,
                eni,
                index,
                waited_for,
                ..
            } => {
                let grant = Grant {
                    address,
                    eni,
                    index,
                    waited_for,
                };
                self.answer(ticket, sandbox, Ok(Granted::New(grant)));
            }
            Command::GrantAgain {
                ticket,
                sandbox,
                address,
                eni,
            } => self.answer(ticket, sandbox, Ok(Granted::Again { address, eni })),
            Command::Refuse {
                ticket,
                sandbox,
                refusal,
            } => {
                self.answer(ticket, sandbox, Err(refusal));
            }
            Command::ConfigureEni(eni) => {
                self.configured.insert(eni.eni.clone(), (*eni).clone());
                let (op, host) = (eni.op, self.host.clone());
                self.in_background(op, async move {
                    host.configure(*eni).await.map(|()| Answer::Done)
                });
            }
            Command::DeconfigureEni { op, eni } => {
                let known = self.configured.remove(&eni);
                let host = self.host.clone();
                self.in_background(op, async move {
                    match known {
                        Some(eni) => host.deconfigure(eni).await.map(|()| Answer::Done),
                        None => Ok(Answer::Done),
                    }
                });
            }
            command => self.ask_ec2(command),
        }
    }

    /// Starts work and converts its result into the event that the planner waits for.
    fn in_background(
        &self,
        op: Op,
        work: impl Future<Output = Result<Answer, Failure>> + Send + 'static,
    ) {
        let pool = self.handle.clone();
        drop(self.detached.spawn(async move {
            let result = work.await;
            pool.tell(Event::Answered { op, result }).await;
        }));
    }

    fn answer(&mut self, ticket: Ticket, sandbox: Sandbox, answer: Result<Granted, Refusal>) {
        let Some(reply) = self.waiting.remove(&ticket) else {
            return;
        };
        // The caller's task does not depend on its connection, so it is gone only if it died: take the address back.
        if let Err(Ok(Granted::New(_))) = reply.send(answer) {
            let pool = self.handle.clone();
            drop(
                self.detached
                    .spawn(async move { pool.tell(Event::Unwired { sandbox }).await }),
            );
        }
    }
}

/// Whether the command stops using addresses.
const fn gives_back(command: &Command) -> bool {
    matches!(
        command,
        Command::Unassign { .. }
            | Command::DeconfigureEni { .. }
            | Command::DetachEni { .. }
            | Command::DeleteEni { .. }
    )
}

fn op_of(command: &Command) -> Op {
    match command {
        Command::CreateEni { op, .. }
        | Command::AttachEni { op, .. }
        | Command::DeleteOnTermination { op, .. }
        | Command::SetGroups { op, .. }
        | Command::Assign { op, .. }
        | Command::Unassign { op, .. }
        | Command::DeconfigureEni { op, .. }
        | Command::DetachEni { op, .. }
        | Command::DeleteEni { op, .. }
        | Command::Describe { op }
        | Command::DescribeSubnets { op, .. } => *op,
        Command::ConfigureEni(eni) => eni.op,
        Command::Grant { .. } | Command::GrantAgain { .. } | Command::Refuse { .. } => {
            unreachable!("answers to pods carry no op")
        }
    }
}
