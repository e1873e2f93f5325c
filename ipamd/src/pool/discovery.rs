//! The EC2 calls after the start that the planner does not command, and their timing.
//!
//! A fleet may start all at once: a DaemonSet rollout, or a region after a power failure. Each node therefore makes one
//! call at first, not two; a node that can serve from its records waits a random time; and the search for leaks comes
//! later. Pods do not wait for any of this.

use std::{sync::Arc, time::Duration};

use planner::{Class, Event, Failure, Observed};
use proto::error_chain::chain;
use tokio::sync::{Notify, mpsc};

use crate::{
    ec2::executor::Executor, host::seam::HostNews, pool::driver::Pool, runtime::worker::Worker,
    state::store::Store,
};

/// A node with records can serve; its first call is spread over this time.
const UNHURRIED: Duration = Duration::from_secs(10);
/// A node without records needs the answer. EC2 would throttle a thousand calls at the same instant.
const HURRIED: Duration = Duration::from_secs(1);
/// The search for leaked ENIs: the earliest time, and the range over which it is spread. A leak must be removed within
/// ten minutes (I4), and 5,000 nodes in seven minutes are 12 calls per second of the account's 20.
const STRAYS_AFTER: Duration = Duration::from_secs(60);
const STRAYS_SPREAD: Duration = Duration::from_secs(420);

const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The time between two calls to EC2, and the range over which the first is spread: an ENI that is removed from one
/// node may be removed from all.
const ASK_PAUSE: Duration = Duration::from_secs(30);
const ASK_SPREAD: Duration = Duration::from_secs(2);

/// Sends EC2's list of attached ENIs to the pool as soon as it arrives. Some minutes later sends
/// the ENIs that a previous process left unattached, if any, unless the settings forbid the search. Ends when both are
/// done. `serving`: the pool has ENIs from its records.
pub async fn run(executor: Executor, pool: Pool, serving: bool) {
    let spread = if serving { UNHURRIED } else { HURRIED };
    let executor = &executor;
    tokio::time::sleep(executor.spread(spread)).await;
    pool.tell(Event::Inventory(attached(executor).await)).await;

    if !executor.cleans_up() {
        return;
    }
    tokio::time::sleep(STRAYS_AFTER + executor.spread(STRAYS_SPREAD)).await;
    if insist(executor, || executor.strays()).await {
        tracing::info!("found unattached ENIs of this node");
        let all = insist(executor, || executor.inventory()).await;
        pool.tell(Event::Inventory(all)).await;
    }
}

/// Searches immediately for ENIs that the previous process was creating when it ended, and deletes its intents when EC2
/// has listed everything with this node's tag: the list contains their result.
pub async fn settle(executor: Executor, pool: Pool, intents: Vec<String>, journal: Worker<Store>) {
    let executor = &executor;
    tracing::info!(
        count = intents.len(),
        "ENIs were being created when the daemon ended; searching for them"
    );
    let all = insist(executor, || executor.inventory()).await;
    pool.tell(Event::Inventory(all)).await;
    for token in intents {
        // If the worker has ended, the daemon ends too; the next start does it.
        if let Ok(Err(error)) = journal.run(move |store| store.settle(&token)).await {
            tracing::error!(error = chain(&error), "could not delete an intent");
        }
    }
}

/// Lists the attached ENIs whenever it is notified, and sends the list to the pool.
pub async fn follow_enis(ask: Arc<Notify>, executor: Executor, pool: Pool) {
    loop {
        ask.notified().await;
        tokio::time::sleep(executor.spread(ASK_SPREAD)).await;
        let list = attached(&executor).await;
        pool.tell(Event::Inventory(list)).await;
        tokio::time::sleep(ASK_PAUSE).await;
    }
}

/// Passes on to the pool what it must know of the host. Asks for EC2's list if an ENI may be adopted now that the host no
/// longer uses it.
pub async fn follow_host(
    mut news: mpsc::Receiver<HostNews>,
    executor: Executor,
    ask: Arc<Notify>,
    pool: Pool,
) {
    while let Some(news) = news.recv().await {
        let event = match news {
            HostNews::LinkGone(mac) => {
                executor.link_gone(mac);
                Event::EniLinkGone { mac }
            }
            HostNews::Claims(claims) => {
                if executor.host_has(&claims) {
                    ask.notify_one();
                }
                Event::HostClaims(claims)
            }
        };
        pool.tell(event).await;
    }
}

/// EC2's list of what is attached to this node, however long it takes.
pub async fn attached(executor: &Executor) -> Vec<Observed> {
    insist(executor, || executor.attached()).await
}

/// Repeats the call until there is an answer, because nothing can replace it. After throttling, the limiter determines
/// the time.
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
        tracing::warn!(%failure, ?wait, "could not list this node's ENIs; trying again");
        tokio::time::sleep(wait).await;
    }
}
