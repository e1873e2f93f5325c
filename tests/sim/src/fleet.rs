//! A fleet in virtual time: thousands of nodes, each with the daemon's own pool task, planner, executor and limiter,
//! share the EC2 buckets of one account.
//!
//! Only EC2 and the kernel are simulated ([`account`], [`node`]); everything that decides when a call is sent is real.
//! Runs on a paused, single-threaded tokio runtime from the caller: an hour takes no longer than its events, and a seed
//! reproduces a run.
//!
//! May use no other module. Must not know the simulation of one node.

pub mod account;
pub mod node;
pub mod report;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use planner::EniClass;
use tokio::{task::JoinSet, time::Instant};

use self::{
    account::Account,
    node::Node,
    report::{Row, Served},
};

/// Without a call for this long, the fleet is at rest. Longer than the longest back-off.
const REST: Duration = Duration::from_secs(11 * 60);
const IDLE: Duration = Duration::from_secs(3600);

/// All three scenarios in sequence on the same nodes: start, growth by one ENI each, one idle hour.
///
/// # Panics
/// If the instance type is missing in the planner's table.
pub async fn run(nodes: usize, seed: u64, class: &EniClass) -> Vec<Row> {
    let account = Arc::new(Account::new(nodes, seed));
    let mut tasks = JoinSet::new();
    let mut fleet = Vec::with_capacity(nodes);
    for n in 0..nodes {
        fleet.push(Node::start(n, seed, class, &account, &mut tasks));
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

/// `pods` more on every node, all at once, until the last one has its address.
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
    // A node is served when its last pod is; pods that got a free address show nothing about EC2.
    served.sort_unstable();
    let last = served.split_off(served.len() - fleet.len());
    Row::new(what, fleet.len(), account.since(from), last)
}

/// Waits until there were no calls for a while.
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
