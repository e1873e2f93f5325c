//! Addresses of the other family that others have on this node: the pods that the AWS VPC CNI's `egress-cni` wired keep theirs
//! after a takeover, or without one.

use super::Sandboxes;
use crate::host::seam::{PodHost as _, WireError};

impl Sandboxes {
    /// Looks at the kernel and keeps these addresses from pods. To be called before the first ADD. No further ones can come
    /// afterwards, because the AWS VPC CNI and Hawser never run at the same time.
    ///
    /// # Errors
    /// If the kernel could not be queried.
    pub async fn reserve_egress(&self) -> Result<(), WireError> {
        let shared = &self.shared;
        let in_use = shared.host.egress_in_use().await?;
        let until = shared.pool.now() + shared.cooldown;
        for address in shared.egress.reserve(&in_use) {
            // Connections of the pod that had it may still be tracked.
            shared.host.left(address, until);
        }
        Ok(())
    }

    /// The same again, as long as others have any.
    pub(super) async fn release_egress(&self) -> Result<(), WireError> {
        if self.shared.egress.has_reserved() {
            self.reserve_egress().await?;
        }
        Ok(())
    }
}
