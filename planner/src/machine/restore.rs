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
    /// What the daemon knew before it was restarted. These ENIs are usable at once, for the kernel has kept them up;
    /// they are configured again all the same, to put right what changed meanwhile.
    pub(super) fn restore(&mut self, restored: Restored) {
        let now = self.now;
        let mut enis = restored.enis;
        // By device, so that indices come out as before the restart.
        enis.sort_by_key(|observed| observed.attached.as_ref().map(|bond| bond.device));
        for observed in enis.iter().filter(|observed| observed.attached.is_some()) {
            let mut eni = Eni::observed(
                observed,
                self.instance.default_card,
                Phase::Configuring,
                now,
            );
            eni.carries = true;
            // Nothing here is younger than any list of EC2's: the first one is to be compared with all of it.
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

    /// A live pod's address is never dropped, whether or not the rest of the record explains it: forgetting it would
    /// grant it to another (upstream #3824).
    fn restore_one(&mut self, sandbox: &Sandbox, pod: &Pod, address: IpAddr, id: &EniId) {
        let now = self.now;
        let key = self.pool.key_of(id).unwrap_or_else(|| {
            let subnet = self.primary_subnet.clone();
            self.pool
                .insert(Eni::remembered(id.clone(), subnet, Mono::ZERO))
        });
        if self.pool.get(key).is_some_and(|eni| !eni.covers(address)) {
            let net = implied(address);
            self.pool.add_block(key, net, Mono::ZERO);
            // A pod proves that there was a prefix, not that it is still ours: EC2 has to list it before others get of it.
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

/// The block that a pod's address came from. In IPv6 all come from prefixes; as blocks of their own the pods of one that was
/// taken away would fill the ENI, and leave no room for another.
fn implied(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => address.into(),
        IpAddr::V6(six) => Ipv6Net::new_assert(six, 80).trunc().into(),
    }
}
