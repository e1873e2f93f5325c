//! The part of the pool that a restarted daemon may use before EC2 has answered.

use ipnet::IpNet;
use planner::{
    Observed, Snapshot,
    event::EniAttachment,
    snapshot::{AddressState, AddressView},
};

/// The ENIs that serve pods, in EC2's terms, for use after a restart. ENIs that are being added or removed or are in
/// doubt are left out, because a restarted daemon assigns addresses of these ENIs before EC2 has confirmed anything.
/// Pods on other ENIs have their own records.
#[must_use]
pub fn observed(pool: &Snapshot) -> Vec<Observed> {
    let unsure = |view: &AddressView| {
        matches!(
            view.state,
            AddressState::Releasing | AddressState::Quarantined
        )
    };
    let serving = pool.enis.iter().filter(|eni| eni.usable);
    let kept = serving.filter_map(|eni| {
        let attachment = EniAttachment {
            id: eni.attachment.clone()?,
            card: eni.card,
            device: eni.device?,
            settled: true,
        };
        let singles = eni
            .addresses
            .iter()
            .filter(|view| view.prefix.is_none() && !unsure(view));
        let whole = |prefix: &IpNet| {
            let mut members = eni
                .addresses
                .iter()
                .filter(|view| view.prefix == Some(*prefix));
            !members.any(unsure)
        };
        Some(Observed {
            eni: eni.id.clone()?,
            mac: eni.mac?,
            subnet: eni.subnet.clone(),
            subnet_cidr: eni.subnet_cidr,
            security_groups: eni.security_groups.clone(),
            primary: eni.primary_address?,
            addresses: singles.map(|view| view.address).collect(),
            prefixes: eni.prefixes.iter().copied().filter(whole).collect(),
            attached: Some(attachment),
            managed: true,
            tagged_ours: false,
        })
    });
    kept.collect()
}
