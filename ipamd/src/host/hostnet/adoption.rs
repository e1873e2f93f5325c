//! Pods of the AWS VPC CNI that become Hawser's.

use datapath::{
    host::{ForeignPod, HostError, Predecessor, Reconciler},
    pod::WiredPod,
};

use super::{HostNet, wired_pod_of};
use crate::{
    host::seam::{Live, WireError},
    state::store::Record,
};

impl HostNet {
    /// The living pods of the AWS VPC CNI that are not Hawser's yet.
    ///
    /// # Errors
    /// [`WireError`] if the kernel could not be queried.
    pub async fn foreign_pods(&self) -> Result<Vec<ForeignPod>, WireError> {
        self.on(|host| host.foreign_pods(Predecessor::AwsNode))
            .await
    }

    /// Makes the link with this index that of the record's pod, beside the rules that it has. Returns whether the link is still
    /// there.
    ///
    /// # Errors
    /// [`WireError`]. The pod is as it was.
    pub async fn adopt(&self, record: &Record, host_index: u32) -> Result<bool, WireError> {
        let record = record.clone();
        let pod: WiredPod = wired_pod_of(&Live { record, host_index });
        self.on(move |host| host.adopt_pod(pod)).await
    }

    /// Removes what managed pods had from the AWS VPC CNI, and returns each object as text.
    ///
    /// # Errors
    /// [`WireError`]. A repetition removes the rest.
    pub async fn remove_traces(&self) -> Result<Vec<String>, WireError> {
        self.on(|host| host.remove_traces(Predecessor::AwsNode))
            .await
    }

    /// Removes the AWS VPC CNI's chains from tables of the older iptables, and returns each object as text.
    ///
    /// # Errors
    /// [`WireError`]. What is left does no harm.
    pub async fn remove_legacy_chains(&self) -> Result<Vec<String>, WireError> {
        let removed = self.writer.run(Reconciler::remove_legacy_chains).await?;
        removed.map_err(|error| WireError::Kernel(error.into()))
    }

    /// Removes what the AWS VPC CNI's egress plugin made for pods that have ended, and returns their addresses.
    ///
    /// # Errors
    /// [`WireError`]. A repetition removes the rest.
    pub async fn release_egress_cni(&self) -> Result<Vec<std::net::IpAddr>, WireError> {
        self.on(Reconciler::release_egress_cni).await
    }

    async fn on<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Reconciler) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, WireError> {
        let done = self.writer.run(work).await?;
        done.map_err(|error| WireError::Kernel(error.into()))
    }
}
