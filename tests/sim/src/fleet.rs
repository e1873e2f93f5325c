//! A fleet in virtual time: thousands of nodes, each the daemon's own pool task, planner, executor and limiter, share
//! the EC2 buckets of one account.
//!
//! Only EC2 and the kernel are played ([`account`], [`node`]); whatever decides when a call is sent is the real thing.
//! Runs on a paused, single-threaded tokio runtime, which the caller provides: an hour takes no longer than its events,
//! and a seed repeats a run.

pub mod account;
pub mod node;
pub mod report;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};

use self::{
    account::Account,
    node::Node,
    report::{Row, Served},
};

/// No call for this long: the fleet has come to rest. Longer than the longest back-off of anything.
const REST: Duration = Duration::from_secs(11 * 60);
const IDLE: Duration = Duration::from_secs(3600);

/// All three scenarios, one after the other on the same nodes: start, growth by one ENI each, one hour idle.
///
/// # Panics
/// If the instance type is unknown, which would be the planner's table at fault.
pub async fn run(nodes: usize, seed: u64) -> Vec<Row> {
    let account = Arc::new(Account::new(nodes, seed));
    let mut tasks = JoinSet::new();
    let mut fleet = Vec::with_capacity(nodes);
    for n in 0..nodes {
        fleet.push(Node::start(n, seed, &account, &mut tasks));
    }
    let start = serve(&fleet, &account, "all start", 1).await;
    rest(&account).await;
    let grow = serve(&fleet, &account, "all grow one ENI", node::FIRST_ENI).await;
    rest(&account).await;
    let from = account.now();
    tokio::time::sleep(IDLE).await;
    let idle = Row::new("one hour idle", nodes, account.since(from), Vec::new());
    vec![start, grow, idle]
}

/// `pods` more on every node, all at once, until the last has its address.
async fn serve(fleet: &[Node], account: &Account, what: &'static str, pods: u32) -> Row {
    let from = account.now();
    let begun = Instant::now();
    let mut asking = JoinSet::new();
    for node in fleet {
        for _ in 0..pods {
            let pod = node.pod();
            asking.spawn(async move {
                pod.await;
                begun.elapsed()
            });
        }
    }
    let mut served: Served = Vec::new();
    while let Some(took) = asking.join_next().await {
        served.push(took.expect("a pod's task does not panic"));
    }
    // A node is served when its last pod is; pods that found an address in stock say nothing of EC2.
    served.sort_unstable();
    let last = served.split_off(served.len() - fleet.len());
    Row::new(what, fleet.len(), account.since(from), last)
}

/// Waits until nobody has called for a while.
async fn rest(account: &Account) {
    loop {
        let last = account.last_call().max(account.now().saturating_sub(REST));
        let quiet = account.now() - last;
        if quiet >= REST {
            return;
        }
        tokio::time::sleep(REST - quiet).await;
    }
}
