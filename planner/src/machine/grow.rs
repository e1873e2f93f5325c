//! Growth: what to request from EC2, sized by the waiting pods and the warm targets, in one call per ENI.
//!
//! Existing ENIs are filled first, then new ones are created, several at once if one cannot hold the demand. What is on its
//! way counts as received, so nothing is requested twice. What is slow or in trouble does not count, so nothing waits for
//! it.

use std::time::Duration;

use super::Planner;
use crate::{
    Amount, Command, EniSpec, SubnetId,
    gate::Action,
    limits::PREFIX_SIZE,
    policy::{Need, Stock},
    pool::{
        Key,
        eni::{Asked, EXPECTED_WITHIN, Eni, Trust},
    },
    snapshot::Phase,
    unit::Unit,
};

/// Pods come in bursts, one event each. Waiting this long for the rest of a burst costs a hundredth of an EC2 round trip
/// and saves a second call for every ENI.
pub(super) const GATHER: Duration = Duration::from_millis(10);

/// What an ENI can add to the pool.
enum Offer {
    /// Up to this many slots can be requested now.
    Now(u16),
    /// Up to this many slots can be requested as soon as the call in progress is done.
    Soon(u16),
    Nothing,
}

impl Planner {
    pub(super) fn grow(&mut self, out: &mut Vec<Command>) {
        if !self.may_change() {
            return;
        }
        let mut need = self.policy.short(&self.stock(), &self.flow());
        if need.addresses == 0 {
            need = self.exchange();
        }
        if need.addresses == 0 {
            self.gathering = None;
            return;
        }
        let since = *self.gathering.get_or_insert(self.now);
        if self.now < since + GATHER {
            return;
        }
        self.gathering = None;
        if self.awaits_subnets() {
            return;
        }
        for key in self.by_fullness() {
            if need.addresses == 0 {
                return;
            }
            match self.offer(key) {
                Offer::Now(slots) => self.assign(key, slots, &mut need, out),
                Offer::Soon(slots) => {
                    need.addresses = need.addresses.saturating_sub(self.worth(slots))
                }
                Offer::Nothing => {}
            }
        }
        if need.addresses > need.slack {
            self.create(need);
        }
    }

    /// The addresses that replace idle prefixes after prefix mode was turned off: the prefixes are given back once the
    /// targets hold without them. This is no reason to create an ENI.
    fn exchange(&self) -> Need {
        let enis = self.pool.enis().filter(|eni| eni.grantable());
        let blocks = enis.flat_map(|eni| eni.blocks.values());
        let idle = blocks.filter(|block| block.is_prefix() && block.wholly_free());
        let idle = u32::try_from(idle.count()).unwrap_or(u32::MAX);
        if self.policy.unit != Unit::Address || idle == 0 {
            return Need::default();
        }
        let stock = self.stock();
        let without = Stock {
            free: stock.free.saturating_sub(idle.saturating_mul(PREFIX_SIZE)),
            ..stock
        };
        let need = self.policy.short(&without, &self.flow());
        Need {
            slack: need.addresses,
            ..need
        }
    }

    /// Ready ENIs first, then those that are coming up. Among equals, the fullest first.
    fn by_fullness(&self) -> Vec<Key> {
        let open = self
            .pool
            .iter()
            .filter(|(_, eni)| eni.trust == Trust::Sound && !eni.leaving() && eni.closed.is_none());
        let mut keys: Vec<_> = open
            .map(|(key, eni)| {
                (
                    !eni.grantable(),
                    std::cmp::Reverse(eni.counts().held),
                    eni.device,
                    key,
                )
            })
            .collect();
        keys.sort_unstable();
        keys.into_iter().map(|(.., key)| key).collect()
    }

    fn offer(&self, key: Key) -> Offer {
        let Some(eni) = self.pool.get(key) else {
            return Offer::Nothing;
        };
        let room = eni.room(self.instance.slots_per_eni());
        let on_schedule = eni.grantable() || self.on_schedule(eni);
        if room == 0 || !on_schedule || self.gates.exhausted(&eni.subnet, self.now) {
            return Offer::Nothing;
        }
        if eni.suspect.is_some() {
            return if eni.resolves_soon(self.now) {
                Offer::Soon(room)
            } else {
                Offer::Nothing
            };
        }
        if let Some(asked) = eni.assign {
            return if self.now < asked.since + EXPECTED_WITHIN {
                Offer::Soon(room)
            } else {
                Offer::Nothing
            };
        }
        if self.now < eni.assign_after {
            return if eni.assign_tries <= 1 {
                Offer::Soon(room)
            } else {
                Offer::Nothing
            };
        }
        match eni.phase {
            Phase::Creating => Offer::Soon(room),
            // The account is throttled. A new ENI instead would cost three calls.
            _ if self.gates.throttled.shut(Action::Assign, self.now) => Offer::Soon(room),
            _ if !self.gates.open(Action::Assign, self.now) => Offer::Nothing,
            _ if self.probing(&eni.subnet) => Offer::Soon(room),
            _ => Offer::Now(room),
        }
    }

    /// Whether to count on an ENI that is coming up. A throttled one counts: another ENI would wait in the same queue,
    /// behind it.
    fn on_schedule(&self, eni: &Eni) -> bool {
        let queued = eni.phase == Phase::Unattached
            && eni.suspect.is_none()
            && eni.trust == Trust::Sound
            && self.gates.throttled.stuck(Action::Attach);
        queued || eni.on_schedule(self.now)
    }

    /// A scarce subnet gets one call at a time, otherwise every parallel refusal would halve the next request.
    pub(super) fn probing(&self, subnet: &SubnetId) -> bool {
        self.gates.cap(subnet).is_some()
            && self
                .pool
                .enis()
                .any(|eni| eni.subnet == *subnet && eni.asked().is_some() && eni.suspect.is_none())
    }

    fn assign(&mut self, key: Key, room: u16, need: &mut Need, out: &mut Vec<Command>) {
        let Some((id, subnet)) = self
            .pool
            .get(key)
            .and_then(|eni| Some((eni.id.clone()?, eni.subnet.clone())))
        else {
            return;
        };
        let amount = self.amount(&subnet, room, *need);
        let op = self.pending(Action::Assign, Some(key));
        let since = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.assign = Some(Asked { op, amount, since });
        }
        // The rest of its room counts as requested: the next call follows this one's answer.
        need.addresses = need
            .addresses
            .saturating_sub(self.worth(room).max(amount.addresses()));
        self.counters.count(Action::Assign);
        out.push(Command::Assign {
            op,
            eni: id,
            amount,
        });
    }

    /// Plans ENIs for what is still missing. [`Planner::advance`] sends the calls, because creating is an ENI's first step.
    fn create(&mut self, mut need: Need) {
        let shut = self.gates.limit.shut(self.now) || self.gates.host.shut(self.now);
        let closed = [Action::Create, Action::Attach]
            .iter()
            .any(|action| !self.gates.open(*action, self.now));
        if shut || closed {
            return;
        }
        let class = self.class.as_ref();
        let groups = class.map_or(None, |class| class.security_groups.clone());
        for _ in 0..self.eni_room() {
            if need.addresses == 0 {
                return;
            }
            self.note_wish();
            let Some(subnet) = self.next_place() else {
                return;
            };
            let amount = self.amount(&subnet, self.instance.slots_per_eni(), need);
            let token = format!(
                "hawser-{:016x}{:016x}",
                self.tokens.next(),
                self.tokens.next()
            );
            let spec = EniSpec {
                subnet,
                security_groups: groups.clone(),
                card: self.instance.default_card,
                amount,
            };
            self.pool.insert(Eni::intended(spec, token, self.now));
            need.addresses = need
                .addresses
                .saturating_sub(self.worth(self.instance.slots_per_eni()));
        }
    }

    /// How much to request: what is needed, bounded by the ENI's room and by what the subnet could last give.
    fn amount(&self, subnet: &SubnetId, room: u16, need: Need) -> Amount {
        let unit = match self.policy.unit {
            Unit::Prefix if self.gates.is_fragmented(subnet, self.now) => Unit::Address,
            unit => unit,
        };
        let wish = need.addresses.div_ceil(unit.size());
        let wish = u16::try_from(wish).unwrap_or(u16::MAX);
        let full = if need.fill { room } else { room.min(wish) };
        let cap = self
            .gates
            .cap(subnet)
            .map_or(u16::MAX, |cap| u16::try_from(cap).unwrap_or(u16::MAX));
        unit.amount(full.min(cap).max(1))
    }

    /// The addresses that this many slots hold in the pool's mode.
    fn worth(&self, slots: u16) -> u32 {
        u32::from(slots) * self.policy.unit.size()
    }

    /// The addresses of this ENI that can be assigned soon.
    pub(super) fn incoming(&self, eni: &Eni) -> u32 {
        if eni.trust != Trust::Sound || eni.closed.is_some() {
            return 0;
        }
        if eni.grantable() {
            let fresh = eni
                .assign
                .filter(|asked| self.now < asked.since + EXPECTED_WITHIN);
            return fresh.map_or(0, |asked| asked.amount.addresses());
        }
        if !self.on_schedule(eni) {
            return 0;
        }
        eni.counts().free + eni.asked().map_or(0, Amount::addresses)
    }
}
