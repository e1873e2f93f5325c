//! What the daemon asks EC2 after its start, unasked by the planner, and when.
//!
//! A fleet may start as one: a DaemonSet rolled out at once, a region that lost power. So a node makes one call then, not
//! two, a node that can serve from its records does not hurry, and the search for leaks waits for a quieter minute.
//! Whoever serves pods need not wait for any of it.

use std::{sync::Arc, time::Duration};

use planner::{Class, Event, Failure, Mac, Observed};
use proto::error_chain::chain;
use tokio::sync::{Notify, mpsc};

use crate::{
    ec2::executor::Executor, pool::driver::Pool, runtime::worker::Worker, state::store::Store,
};

/// A node with records can serve; its first question is spread over this long.
const UNHURRIED: Duration = Duration::from_secs(10);
/// One without can do nothing before the answer, but a thousand questions in one instant gain nobody anything.
const HURRIED: Duration = Duration::from_secs(1);
/// The search for leaked ENIs: not before, and how far it is spread. A leak is to be gone within ten minutes (I4), and
/// 5,000 nodes in seven minutes are 12 calls per second of the account's 20.
const STRAYS_AFTER: Duration = Duration::from_secs(60);
const STRAYS_SPREAD: Duration = Duration::from_secs(420);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Between two questions to EC2, and how far the first is spread: what is pulled from one node may be pulled from all.
const ASK_PAUSE: Duration = Duration::from_secs(30);
const ASK_SPREAD: Duration = Duration::from_secs(2);

/// Tells the pool what is attached to this node, as soon as EC2 says so, and some minutes later of ENIs that a former
/// life left unattached, if there are any. Ends when both are done. `serving`: the pool has ENIs from its records.
pub async fn run(executor: Executor, pool: Pool, serving: bool) {
    let spread = if serving { UNHURRIED } else { HURRIED };
    let executor = &executor;
    tokio::time::sleep(executor.spread(spread)).await;
    pool.tell(Event::Inventory(attached(executor).await)).await;

    tokio::time::sleep(STRAYS_AFTER + executor.spread(STRAYS_SPREAD)).await;
    if insist(executor, || executor.strays()).await {
        tracing::info!("found unattached ENIs of this node");
        let all = insist(executor, || executor.inventory()).await;
        pool.tell(Event::Inventory(all)).await;
    }
}

/// Looks at once for ENIs that a former life was creating when it ended, and forgets its intents once EC2 has listed
/// everything that carries this node's tag: whatever became of them is in that list.
pub async fn settle(executor: Executor, pool: Pool, intents: Vec<String>, journal: Worker<Store>) {
    let executor = &executor;
    tracing::info!(
        count = intents.len(),
        "ENIs were being created when the daemon ended; looking for them"
    );
    let all = insist(executor, || executor.inventory()).await;
    pool.tell(Event::Inventory(all)).await;
    for token in intents {
        // A worker that is gone takes the daemon along; the next start settles.
        if let Ok(Err(error)) = journal.run(move |store| store.settle(&token)).await {
            tracing::error!(error = chain(&error), "could not settle an intent");
        }
    }
}

/// Asks EC2 what is attached whenever it is woken, and tells the pool.
pub async fn follow_enis(ask: Arc<Notify>, executor: Executor, pool: Pool) {
    loop {
        ask.notified().await;
        tokio::time::sleep(executor.spread(ASK_SPREAD)).await;
        let list = attached(&executor).await;
        pool.tell(Event::Inventory(list)).await;
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// Tells the pool of each ENI whose link is gone from the kernel.
pub async fn follow_lost_links(mut lost: mpsc::Receiver<Mac>, pool: Pool) {
    while let Some(mac) = lost.recv().await {
        pool.tell(Event::EniLinkGone { mac }).await;
    }
}

/// What EC2 says is attached to this node, however long it takes to say so.
pub async fn attached(executor: &Executor) -> Vec<Observed> {
    insist(executor, || executor.attached()).await
}

/// Asks until there is an answer: nothing else can stand for it. A throttled call comes back when the limiter says.
async fn insist<T, F>(executor: &Executor, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        let failure = match ask().await {
            Ok(answer) => return answer,
            Err(failure) => failure,
        };
        let wait = match failure.class {
            Class::Throttled {
                retry_after: Some(wait),
            } => wait,
            _ => {
                let full = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                full / 2 + executor.spread(full / 2)
            }
        };
        tracing::warn!(%failure, ?wait, "EC2 did not say which ENIs this node has; asking again");
        tokio::time::sleep(wait).await;
    }
}
