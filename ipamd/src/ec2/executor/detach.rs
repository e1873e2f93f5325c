//! Detaching an ENI. EC2 answers immediately and then takes seconds, sometimes minutes.
//!
//! EC2 is asked at growing intervals whether it is done, and again soon after the link has disappeared from the kernel: a pod
//! may wait for the slot.

use std::{pin::pin, time::Duration};

use planner::{Answer, AttachmentId, Class, EniId, Failure, Mac};
use tokio::sync::broadcast::{self, error::RecvError};

use super::Executor;
use crate::ec2::api::{Call, Interface, Reply};

/// The time limit of a detachment: EC2 may take minutes. It is shorter than the planner's deadline for the answer.
const LIMIT: Duration = Duration::from_secs(210);
/// Before the first question; each one doubles the pause up to the longest.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How many links may disappear at once. No instance has more.
pub(super) const LINKS_AT_ONCE: usize = 128;

impl Executor {
    /// The kernel no longer has a link with this MAC address.
    pub fn link_gone(&self, mac: Mac) {
        // Most of the time, nobody waits for a detachment.
        drop(self.links_gone.send(mac));
    }

    pub(super) async fn detach(
        &self,
        eni: EniId,
        mac: Option<Mac>,
        attachment: AttachmentId,
    ) -> Result<Answer, Failure> {
        let mut gone = pin!(disappearance(self.links_gone.subscribe(), mac));
        match self.call(Call::DetachNetworkInterface { attachment }).await {
            // Already detached, or in progress: the check below will tell.
            Err(failure) if matches!(failure.class, Class::NotFound | Class::InUse) => {}
            result => drop(result?),
        }
        let begun = tokio::time::Instant::now();
        let (mut pause, mut linked) = (PAUSE, true);
        while begun.elapsed() < LIMIT {
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                () = &mut gone, if linked => {
                    // EC2 may show it a little later than the kernel.
                    (pause, linked) = (PAUSE, false);
                    continue;
                }
            }
            // A failed check does not affect the detachment, and repeating the call would not help.
            if let Ok(true) = self.is_detached(&eni).await {
                return Ok(Answer::Done);
            }
        }
        let message = format!(
            "{eni} is still attached {} s after DetachNetworkInterface",
            LIMIT.as_secs()
        );
        Err(Failure::new(Class::InUse, message))
    }

    async fn is_detached(&self, eni: &EniId) -> Result<bool, Failure> {
        let filters = vec![("network-interface-id".to_owned(), eni.0.clone())];
        let reply = self
            .call(Call::DescribeNetworkInterfaces { filters })
            .await?;
        let free = |eni: &Interface| {
            let attachment = eni.attachment.as_ref();
            attachment.is_none_or(|attachment| attachment.status == "detached")
        };
        Ok(matches!(reply, Reply::Interfaces(found) if found.iter().all(free)))
    }
}

/// Ends when the link with this MAC address has disappeared.
async fn disappearance(mut links: broadcast::Receiver<Mac>, mac: Option<Mac>) {
    loop {
        match links.recv().await {
            Ok(gone) if Some(gone) != mac => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}
