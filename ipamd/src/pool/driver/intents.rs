//! EC2 calls as the pool starts them, and the notes on disk around those that make or free an ENI.
//!
//! Writes intents and starts calls; what a lost ENI means is decided at the next start (`cloud::start`).

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
        tracing::info!(?command, "asking EC2");
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

    /// A create is the one call whose loss costs an ENI, so its token is on disk before it is sent, and stays there
    /// until the ENI is attached or known not to exist: a daemon that finds it at its start looks for the ENI at once.
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

    /// A detached ENI that is not deleted yet is on no list of what is attached: noted for a daemon that starts between
    /// the two.
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

    /// Once it is attached or gone, nobody needs to look for the ENI.
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

/// Without its note an ENI lost in a crash is found minutes later, by its tag: worth a log line, not a pod's wait.
async fn note(
    journal: Option<&Worker<Store>>,
    change: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
) {
    let Some(journal) = journal else { return };
    if let Ok(Err(error)) = journal.run(move |store| change(store)).await {
        tracing::error!(error = chain(&error), "could not note an intent");
    }
}
