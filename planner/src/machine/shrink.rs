//! Gives back what is not needed: whole idle ENIs first, then single addresses or prefixes.
//!
//! Only a surplus that has lasted is given back, so that the end of a job does not cost three EC2 calls a minute. Never
//! gives back the primary ENI, or an address with a pod, a reservation or a cooldown on it.

use std::{cmp::Reverse, time::Duration};

use ipnet::IpNet;

use super::Planner;
use crate::{
    Command,
    gate::Action,
    limits::PREFIX_SIZE,
    policy::{Flow, Stock},
    pool::{Key, block::Block, eni::Eni},
    snapshot::Phase,
    unit::Unit,
};

/// How long a surplus must last before it is given back. Upstream waits as long between two shrinks.
pub(super) const SURPLUS_LASTS: Duration = Duration::from_secs(30);
/// How long addresses must be idle in a pool that sizes itself. A pause between two jobs is no surplus.
pub(super) const IDLE_ADDRESSES: Duration = Duration::from_secs(600);
/// How long an ENI must be idle in a pool that sizes itself. Without pod addresses it costs one address, and it saves five
/// calls and some seconds when the load comes back after the night or the weekend.
pub(super) const IDLE_ENI: Duration = Duration::from_secs(3 * 86_400);
/// An ENI that is younger than this is not given back (upstream's figure).
pub(super) const MIN_LIFE: Duration = Duration::from_secs(60);

impl Planner {
    /// Gives back the surplus, once it has lasted.
    pub(super) fn shrink(&mut self, out: &mut Vec<Command>) {
        let quiet = self.may_change() && self.waiting.queued() == 0 && self.flow().incoming == 0;
        if self.policy.own.is_some() {
            if quiet {
                self.shrink_self_sized(out);
            }
            return;
        }
        let surplus = quiet && (self.surplus_blocks() > 0 || self.surplus_eni().is_some());
        if !surplus {
            self.surplus = None;
            return;
        }
        let (since, _) = *self.surplus.get_or_insert((self.now, 0));
        if self.now < since + SURPLUS_LASTS {
            return;
        }
        self.surplus = None;
        while let Some(key) = self.surplus_eni() {
            self.drain(key);
        }
        if self.gates.open(Action::Unassign, self.now) {
            self.give_back_blocks(u32::MAX, out);
        }
    }

    /// The same for a pool that sizes itself. Addresses that were idle during the whole of [`IDLE_ADDRESSES`] go, and ENIs
    /// that were not needed for days go one at a time. Calls in progress do not reset the timers, because on a busy node
    /// there is always one.
    fn shrink_self_sized(&mut self, out: &mut Vec<Command>) {
        let eni = self.surplus_eni();
        let since = *self.idle_eni.get_or_insert(self.now);
        if eni.is_none() {
            self.idle_eni = None;
        } else if self.now >= since + IDLE_ENI {
            self.idle_eni = None;
            eni.into_iter().for_each(|key| self.drain(key));
        }
        let blocks = self.surplus_blocks();
        let (since, least) = self.surplus.unwrap_or((self.now, blocks));
        let least = least.min(blocks);
        self.surplus = (least > 0).then_some((since, least));
        if least > 0 && self.now >= since + IDLE_ADDRESSES {
            self.surplus = None;
            self.give_back_blocks(least, out);
        }
    }

    fn drain(&mut self, key: Key) {
        let now = self.now;
        if let Some(eni) = self.pool.get_mut(key) {
            eni.enter(Phase::Draining, now);
        }
    }

    /// Blocks above the targets, as far as they may be given back at present.
    fn surplus_blocks(&self) -> u32 {
        if !self.gates.open(Action::Unassign, self.now) {
            return 0;
        }
        self.policy.over(&self.stock()) + self.surplus_of_the_other_kind()
    }

    /// Idle blocks of the kind that the pool no longer requests: prefixes after prefix mode was turned off, single addresses
    /// after a subnet was fragmented. They go as soon as the targets hold without them.
    fn surplus_of_the_other_kind(&self) -> u32 {
        let stock = self.stock();
        let (unit, other) = match self.policy.unit {
            Unit::Address => (PREFIX_SIZE, stock.prefixes * PREFIX_SIZE),
            own => (1, stock.total().saturating_sub(stock.prefixes * own.size())),
        };
        let quiet = Flow {
            warm: true,
            ..Flow::default()
        };
        let enough = |blocks: &u32| {
            let left = Stock {
                free: stock.free.saturating_sub(blocks * unit),
                ..stock
            };
            self.policy.short(&left, &quiet).addresses == 0
        };
        if other == 0 {
            return 0;
        }
        let enis = self.pool.enis().filter(|eni| eni.grantable());
        let idle = enis
            .flat_map(|eni| eni.blocks.values())
            .filter(|block| self.other_kind(block) && block.wholly_free());
        let idle = u32::try_from(idle.count()).unwrap_or(u32::MAX);
        (1..=idle).take_while(enough).last().unwrap_or(0)
    }

    fn other_kind(&self, block: &Block) -> bool {
        Unit::of(&block.net) != self.policy.unit
    }

    /// The idle ENI that the pool needs least: the one with the fewest addresses, the highest device first.
    fn surplus_eni(&self) -> Option<Key> {
        let cordoned = !self.schedulable && !self.config.manage_cordoned;
        if cordoned || !self.gates.open(Action::Detach, self.now) {
            return None;
        }
        let stock = self.stock();
        let spare = |eni: &Eni| {
            self.deletable(eni)
                && self.policy.spares(&stock, &Stock::from(eni.counts()))
                && self.roomy_without(eni)
        };
        self.pool
            .iter()
            .filter(|(_, eni)| spare(eni))
            .min_by_key(|(_, eni)| (eni.counts().total(), Reverse(eni.device)))
            .map(|(key, _)| key)
    }

    /// Whether the other ENIs have enough slots for a surge that may come back.
    fn roomy_without(&self, eni: &Eni) -> bool {
        let Some(own) = self.policy.own else {
            return true;
        };
        let others = self
            .pool
            .enis()
            .filter(|other| other.grantable() && other.id != eni.id);
        let slots = u32::try_from(others.count()).unwrap_or(0) * self.policy.eni();
        let stock = self.stock();
        slots >= stock.used + stock.cooling + own.keep
    }

    fn deletable(&self, eni: &Eni) -> bool {
        eni.grantable()
            && eni.phase == Phase::Ready
            && !eni.primary
            && eni.idle()
            // The node itself might lose an address.
            && eni.counts().claimed == 0
            && self.now >= eni.since + MIN_LIFE
            && eni.suspect.is_none()
            && eni.assign.is_none()
            && eni.unassign.is_none()
    }

    /// Unassigns the surplus, from the emptiest ENIs, so that whole ENIs become free. At most `most` blocks of the pool's
    /// kind.
    fn give_back_blocks(&mut self, most: u32, out: &mut Vec<Command>) {
        self.give_back(self.surplus_of_the_other_kind(), true, out);
        let over = self.policy.over(&self.stock()).min(most);
        self.give_back(over, false, out);
    }

    fn give_back(&mut self, mut over: u32, other_kind: bool, out: &mut Vec<Command>) {
        let mut keys: Vec<_> = self
            .pool
            .iter()
            .filter(|(_, eni)| {
                eni.grantable()
                    && eni.suspect.is_none()
                    && eni.unassign.is_none()
                    && eni.assign.is_none()
                    // A lost Unassign is settled first, otherwise the failure of the next one would undo its marks.
                    && eni.counts().releasing == 0
            })
            .map(|(key, eni)| (eni.primary, eni.counts().held, Reverse(eni.device), key))
            .collect();
        keys.sort_unstable();
        for (.., key) in keys {
            let nets = self.spare_blocks(key, over, other_kind);
            if !nets.is_empty() {
                over -= u32::try_from(nets.len()).unwrap_or(over).min(over);
                self.unassign(key, &nets, out);
            }
        }
    }

    /// All wholly free blocks, or as many as one call takes: single addresses or prefixes.
    pub(super) fn free_blocks(&self, key: Key) -> Vec<IpNet> {
        let some = self.spare_blocks(key, u32::MAX, false);
        if some.is_empty() {
            return self.spare_blocks(key, u32::MAX, true);
        }
        some
    }

    /// Up to `count` wholly free blocks of the pool's kind, or of the other kind.
    fn spare_blocks(&self, key: Key, count: u32, other_kind: bool) -> Vec<IpNet> {
        let Some(eni) = self.pool.get(key) else {
            return Vec::new();
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let fitting = |block: &&Block| block.wholly_free() && self.other_kind(block) == other_kind;
        eni.blocks
            .values()
            .filter(fitting)
            .map(|block| block.net)
            .take(count)
            .collect()
    }

    pub(super) fn unassign(&mut self, key: Key, nets: &[IpNet], out: &mut Vec<Command>) {
        let op = self.pending(Action::Unassign, Some(key));
        let Some(eni) = self.pool.get_mut(key) else {
            return;
        };
        let Some(id) = eni.id.clone() else { return };
        eni.unassign = Some(op);
        for net in nets {
            eni.with_block(*net, |block| block.releasing = true);
        }
        let (prefixes, singles): (Vec<IpNet>, Vec<IpNet>) =
            nets.iter().partition(|net| Unit::of(net) != Unit::Address);
        let addresses = singles.iter().map(IpNet::addr).collect();
        self.counters.count(Action::Unassign);
        out.push(Command::Unassign {
            op,
            eni: id,
            addresses,
            prefixes,
        });
    }
}
