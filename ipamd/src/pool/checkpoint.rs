//! What a restarted daemon needs in addition to its sandboxes: the pool's ENIs, what EC2 said about subnets, and the
//! learned demand of pods.
//!
//! Writes what others decide. Nothing here is on the path of an ADD, and no ADD or DEL causes a write: ENIs change with
//! EC2's answers, and demand is learned over half-hours.

use std::time::Duration;

use proto::error_chain::chain;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{
    pool::driver::{Kept, Pool},
    runtime::worker::{Gone, Worker},
    state::store::{Store, StoreError},
};

/// How much of the learned demand a killed daemon may lose: little compared with its half-life of thirty minutes.
const DEMAND_KEPT: Duration = Duration::from_secs(300);

/// Keeps all of it on disk, as long as the daemon runs.
pub async fn keep(kept: Kept, pool: Pool, store: Worker<Store>) {
    let Kept {
        mut enis,
        mut subnets,
        mut class,
    } = kept;
    let mut due = interval_at(Instant::now() + DEMAND_KEPT, DEMAND_KEPT);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // All arms are cancel-safe: a change stays marked until it is read, a tick until it is taken.
        let written = tokio::select! {
            changed = enis.changed() => match changed {
                Ok(()) => {
                    let now = enis.borrow_and_update().clone();
                    store.run(move |store| store.remember_enis(&now)).await
                }
                Err(_) => return,
            },
            changed = subnets.changed() => match changed {
                Ok(()) => {
                    let now = subnets.borrow_and_update().clone();
                    store.run(move |store| store.remember_subnets(&now)).await
                }
                Err(_) => return,
            },
            changed = class.changed() => match changed {
                Ok(()) => {
                    let now = class.borrow_and_update().clone();
                    store.run(move |store| now.map_or(Ok(()), |now| store.remember_class(&now))).await
                }
                Err(_) => return,
            },
            _ = due.tick() => keep_demand(&pool, &store).await,
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "could not record the pool's state")
            }
            Err(Gone) => return,
        }
    }
}

/// Writes the current demand; after an orderly shutdown, even the last minutes are kept.
///
/// # Errors
/// [`Gone`] if the store's thread has ended; inside, the database's error.
pub async fn keep_demand(
    pool: &Pool,
    store: &Worker<Store>,
) -> Result<Result<(), StoreError>, Gone> {
    let Ok(snapshot) = pool.snapshot().await else {
        return Err(Gone);
    };
    store
        .run(move |store| store.remember_demand(&snapshot.demand))
        .await
}

#[cfg(test)]
mod tests;
