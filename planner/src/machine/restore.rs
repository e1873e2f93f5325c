//! Takes over what the daemon knew before it was restarted.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv6Net};

use super::{Planner, reconcile::nets};
use crate::{
    EniId, Mono, Pod, Restored, Sandbox,
    pool::{
        Rest,
        block::{Doubt, SlotState},
        eni::Eni,
    },
    snapshot::Phase,
};

impl Planner {
    /// Restores ENIs, pods and cooldowns. The ENIs are usable at once, because the kernel has kept them up. They are still
    /// configured again, which repairs what has changed in the meantime.
    pub(super) fn restore(&mut self, restored: Restored) {
        let now = self.now;
        let mut enis = restored.enis;
        // In the order of devices, so that the indices are the same as before the restart.
        enis.sort_by_key(|observed| {
            observed
                .attached
                .as_ref()
                .map(|attachment| attachment.device)
        });
        for observed in enis.iter().filter(|observed| observed.attached.is_some()) {
            let mut eni = Eni::observed(
                observed,
                self.instance.default_card,
                Phase::Configuring,
                now,
            );
            eni.carries = true;
            // All of this is older than any list, so the first list is compared with all of it.
            eni.since = Mono::ZERO;
            eni.phase_since = Mono::ZERO;
            eni.restored = Some(now);
            eni.index = self.pool.index_for(&eni);
            let key = self.pool.insert(eni);
            for net in nets(observed, self.config.family) {
                self.pool.add_block(key, net, Mono::ZERO);
            }
        }
        for (sandbox, pod, address, id) in restored.assigned {
            self.restore_one(&sandbox, &pod, address, &id);
        }
        for (address, until) in restored.cooling {
            let released = until - self.config.cooldown;
            self.pool.rest(address, Rest { released, until }, now);
        }
        if let Some(demand) = restored.demand {
            self.demand.restore(demand, now);
        }
    }

    /// A live pod's address is never dropped, even if the ENIs in the record do not contain it. If it were forgotten, it
    /// would be granted to another pod (upstream #3824).
    fn restore_one(&mut self, sandbox: &Sandbox, pod: &Pod, address: IpAddr, id: &EniId) {
        let now = self.now;
        let key = self.pool.key_of(id).unwrap_or_else(|| {
            let subnet = self.placement.subnet.clone();
            self.pool
                .insert(Eni::remembered(id.clone(), subnet, Mono::ZERO))
        });
        if self.pool.get(key).is_some_and(|eni| !eni.covers(address)) {
            let net = implied(address);
            self.pool.add_block(key, net, Mono::ZERO);
            // The pod proves that there was a prefix, not that it is still ours. EC2 must list it before it serves others.
            let is_prefix = net.prefix_len() < net.max_prefix_len();
            let doubt = is_prefix.then_some(Doubt::new(now));
            if let Some(eni) = self.pool.get_mut(key) {
                eni.with_block(net, |block| block.doubt = doubt);
            }
        }
        if self
            .pool
            .put(key, address, sandbox, pod, SlotState::Assigned, now)
            .is_none()
        {
            self.counters.conflicts += 1;
        }
    }
}

/// The block that a pod's address came from. In IPv6 all addresses come from prefixes. If a prefix was taken away and each
/// of its pods became a block of its own, they would fill the ENI and leave no room for another prefix.
fn implied(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => address.into(),
        IpAddr::V6(six) => Ipv6Net::new_assert(six, 80).trunc().into(),
    }
}
