//! What of the pool a restarted daemon may serve from before EC2 has answered.

use ipnet::IpNet;
use planner::{
    Observed, Snapshot,
    event::Bond,
    snapshot::{AddressState, AddressView},
};

/// The ENIs that serve pods, in EC2's terms, for keeping over a restart. What is on its way in, on its way out or in
/// doubt is left out: a daemon that starts grants from these before EC2 has confirmed anything. Pods on the rest are
/// in records of their own.
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
        let bond = Bond {
            attachment: eni.attachment.clone()?,
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
            mac: eni.mac,
            subnet: eni.subnet.clone(),
            subnet_cidr: eni.subnet_cidr,
            primary: eni.primary_address?,
            addresses: singles.map(|view| view.address).collect(),
            prefixes: eni.prefixes.iter().copied().filter(whole).collect(),
            attached: Some(bond),
            managed: true,
            tagged_ours: false,
        })
    });
    kept.collect()
}
