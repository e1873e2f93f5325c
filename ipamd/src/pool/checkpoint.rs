//! What a restarted daemon shall know besides its sandboxes: the pool's ENIs, and what was learnt of the pods' demand.
//!
//! Writes what others decide. Nothing here is on an ADD's path, and no ADD or DEL costs a write: ENIs change when EC2
//! gives or takes, and demand is learnt in half-hours.

use std::time::Duration;

use planner::Observed;
use proto::error_chain::chain;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    pool::driver::Pool,
    runtime::worker::{Gone, Worker},
    state::store::{Store, StoreError},
};

/// How much of the demand's memory a killed daemon may lose: little against its half-life of thirty minutes.
const DEMAND_KEPT: Duration = Duration::from_secs(300);

/// Keeps both on disk, for as long as the daemon runs.
pub async fn keep(mut enis: watch::Receiver<Vec<Observed>>, pool: Pool, store: Worker<Store>) {
    let mut due = interval_at(Instant::now() + DEMAND_KEPT, DEMAND_KEPT);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // Both arms are cancel-safe: a change stays marked until it is read, a tick until it is taken.
        let written = tokio::select! {
            changed = enis.changed() => match changed {
                Ok(()) => {
                    let now = enis.borrow_and_update().clone();
                    store.run(move |store| store.remember_enis(&now)).await
                }
                Err(_) => return,
            },
            _ = due.tick() => keep_demand(&pool, &store).await,
        };
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(error = chain(&error), "could not note the pool's state")
            }
            Err(Gone) => return,
        }
    }
}

/// Writes the demand as it is known now; an orderly end need not lose even the last minutes.
///
/// # Errors
/// [`Gone`] if the store's thread has ended; inside, what the database says.
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
