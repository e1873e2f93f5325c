//! What the AWS VPC CNI's plugin `egress-cni` keeps for pods that were taken over. The runtime does not call it any more, so
//! the end of these pods releases it: a chain in nftables and the lease of an address.

use std::{fs, io, path::Path};

use proto::error_chain::chain;

use super::hostnet::HostNet;

/// The leases of `host-local` for the network `aws-cni`, each in a file named after its address.
const LEASES: [&str; 2] = [
    "/run/cni/v6pd/egress-v4-ipam/aws-cni",
    "/run/cni/v4pd/egress-v6-ipam/aws-cni",
];

/// Releases what pods had that have ended since the last call.
pub(super) async fn release(host: &HostNet) {
    let released = match host.release_egress_cni().await {
        Ok(released) => released,
        Err(error) => {
            let error = chain(&error);
            return tracing::warn!(
                error,
                "could not release what egress-cni made for ended pods"
            );
        }
    };
    for address in released {
        tracing::info!(%address, "released what egress-cni made for a pod that has ended");
        for directory in LEASES {
            let lease = Path::new(directory).join(address.to_string());
            match fs::remove_file(&lease) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(lease = %lease.display(), %error, "could not remove a lease");
                }
                _ => {}
            }
        }
    }
}
