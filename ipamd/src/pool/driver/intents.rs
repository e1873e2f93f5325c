//! The pool's EC2 calls, and the notes on disk around those that create or release an ENI.
//!
//! Writes intents and starts calls; the next start interprets intents of a lost ENI (`pool::discovery`).

use planner::{Answer, Class, Command, EniId};
use proto::error_chain::chain;

use super::{Driver, op_of};
use crate::{
    host::seam::EniHost,
    runtime::worker::Worker,
    state::store::{Store, StoreError},
};

impl<H: EniHost> Driver<H> {
    pub(super) fn ask_ec2(&self, command: Command) {
        tracing::info!(%command, "asking EC2");
        match &command {
            Command::CreateEni { token, .. } => {
                let token = token.clone();
                self.create(command, token);
            }
            Command::DetachEni { eni, .. } => {
                let eni = eni.clone();
                self.detach(command, eni);
            }
            Command::AttachEni { eni, .. } | Command::DeleteEni { eni, .. } => {
                let eni = eni.clone();
                self.settling(command, eni);
            }
            _ => {
                let executor = self.executor.clone();
                self.in_background(op_of(&command), async move { executor.run(command).await });
            }
        }
    }

    /// Create is the one call whose loss costs an ENI, so its token is on disk before the call is sent. It stays there
    /// until the ENI is attached or known not to exist. A daemon that finds a token at its start searches for the ENI
    /// immediately.
    fn create(&self, command: Command, token: String) {
        let (op, executor, journal) =
            (op_of(&command), self.executor.clone(), self.journal.clone());
        self.in_background(op, async move {
            let intent = token.clone();
            note(journal.as_ref(), move |store| store.intend(&intent, None)).await;
            let result = executor.run(command).await;
            match &result {
                Ok(Answer::Created(made)) => {
                    let eni = made.eni.clone();
                    note(journal.as_ref(), move |store| {
                        store.intend(&token, Some(&eni))
                    })
                    .await;
                }
                Err(failure) if failure.class == Class::Ambiguous => {}
                _ => note(journal.as_ref(), move |store| store.settle(&token)).await,
            }
            result
        });
    }

    /// A detached ENI that is not deleted yet is in no list of attached ENIs: it is noted for a daemon that starts in
    /// between.
    fn detach(&self, command: Command, eni: EniId) {
        let (op, executor, journal) =
            (op_of(&command), self.executor.clone(), self.journal.clone());
        self.in_background(op, async move {
            note(journal.as_ref(), move |store| {
                store.intend(&eni.0, Some(&eni))
            })
            .await;
            executor.run(command).await
        });
    }

    /// When it is attached or deleted, no search for the ENI is necessary.
    fn settling(&self, command: Command, eni: EniId) {
        let (op, executor, journal) =
            (op_of(&command), self.executor.clone(), self.journal.clone());
        self.in_background(op, async move {
            let result = executor.run(command).await;
            if result.is_ok() {
                note(journal.as_ref(), move |store| store.settle(&eni.0)).await;
            }
            result
        });
    }
}

/// Without its note, an ENI that is lost in a crash is found minutes later by its tag. A failure is worth a log line,
/// but no pod waits for it.
async fn note(
    journal: Option<&Worker<Store>>,
    change: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) {
    let Some(journal) = journal else { return };
    if let Ok(Err(error)) = journal.run(move |store| change(store)).await {
        tracing::error!(error = chain(&error), "could not record an intent");
    }
}
