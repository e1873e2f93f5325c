//! One ENI: its phase, the calls that are in progress for it, and its blocks of addresses.
//!
//! ```text
//!  Creating ─► Unattached ─► Configuring ─► Ready ─► Draining ─► Detaching ─► Deleting ─► gone
//!                  │              └──────────────────────┘ ▲                      ▲
//!                  └─ no slot, or too many tries ──────────┼──────────────────────┘
//! ```
//! The phase names the *next* step, and [`Eni::due`] says whether it may be taken. This makes every step repeatable: a
//! failed or lost step leaves the phase as it was. Must not choose addresses across ENIs or know the warm policy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::block::{Block, Counts, Slot};
use crate::{
    Amount, AttachmentId, EniId, EniIndex, EniSpec, Mac, Mono, Observed, Op, SecurityGroupId,
    SubnetId, gate::Action, placement::Closed, snapshot::Phase,
};

/// A new ENI usually takes one to ten seconds. If a step takes longer than this, the pool no longer counts on it and grows
/// elsewhere. The slow step keeps its own deadline.
pub(crate) const EXPECTED_WITHIN: Duration = Duration::from_secs(20);

/// How long growth waits until EC2's list settles a lost answer. After that it goes elsewhere.
pub(crate) const SUSPECT_LIMIT: Duration = Duration::from_secs(15);

/// How far EC2's lists agree with our state of this ENI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trust {
    Sound,
    /// EC2 does not list it, or lists it as not attached.
    Missing {
        since: Mono,
        reads: u32,
    },
    /// The pool managed it and no longer does (`no_manage`), or another program has its link. It is left alone until it is
    /// managed again or its pods have left.
    Unmanaged,
}

/// Whether the ENI has other security groups than it should, and the call that changes them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Regroup {
    pub wanted: bool,
    pub op: Option<Op>,
    pub tries: u32,
    pub at: Mono,
}

/// What EC2 is asked to create. The token makes a repetition harmless.
#[derive(Clone, Debug)]
pub(crate) struct Intent {
    pub token: String,
    pub spec: EniSpec,
}

/// DeleteOnTermination is set independently of the phase: a failure harms no pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Termination {
    Settled,
    Wanted {
        op: Option<Op>,
        tries: u32,
        at: Mono,
    },
}

#[derive(Clone, Debug)]
pub(crate) struct Eni {
    pub id: Option<EniId>,
    pub intent: Option<Intent>,
    /// `None` until EC2 reports it, as are the two below.
    pub mac: Option<Mac>,
    pub subnet: SubnetId,
    pub subnet_cidr: Option<Ipv4Net>,
    /// Empty until EC2 reports them.
    pub groups: Vec<SecurityGroupId>,
    pub address: Option<Ipv4Addr>,
    pub attachment: Option<AttachmentId>,
    pub card: u16,
    pub device: Option<u16>,
    pub index: Option<EniIndex>,
    pub primary: bool,
    /// This node created it, as its tag shows. Another program may still use what this node only adopted.
    pub created_here: bool,
    /// Why no new pod gets an address of it, and since when. Its pods keep theirs.
    pub closed: Option<(Closed, Mono)>,

    pub phase: Phase,
    pub phase_since: Mono,
    /// When we first knew it.
    pub since: Mono,
    /// When it was first wanted. Taken once it serves pods. `None` for ENIs that existed before.
    pub wanted: Option<Mono>,
    /// When a restarted daemon restored it from the state file.
    pub restored: Option<Mono>,
    /// The kernel carries its traffic although the host is configuring it again (after a restart).
    pub carries: bool,
    pub trust: Trust,
    /// It never came up. Once it is drained, it is not tried again.
    pub never_came_up: bool,
    /// EC2 no longer lists it. Once the host no longer uses it, it is forgotten and not deleted.
    pub forget_without_delete: bool,

    /// The step in progress.
    pub op: Option<Op>,
    pub tries: u32,
    pub retry_at: Mono,
    /// An answer was lost or contradicts our state. Nothing more is done to this ENI until EC2 has described it.
    pub suspect: Option<Mono>,
    pub assign: Option<Asked>,
    /// How many Assigns in a row ended in doubt, and when the next one may follow.
    pub assign_tries: u32,
    pub assign_after: Mono,
    pub unassign: Option<Op>,
    pub termination: Termination,
    pub regroup: Regroup,

    pub blocks: BTreeMap<IpNet, Block>,
    counts: Counts,
}

/// An Assign in progress.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub op: Op,
    pub amount: Amount,
    pub since: Mono,
}

impl Eni {
    fn blank(subnet: SubnetId, phase: Phase, now: Mono) -> Self {
        Self {
            id: None,
            intent: None,
            mac: None,
            subnet,
            subnet_cidr: None,
            groups: Vec::new(),
            address: None,
            attachment: None,
            card: 0,
            device: None,
            index: None,
            primary: false,
            created_here: false,
            closed: None,
            phase,
            phase_since: now,
            since: now,
            wanted: None,
            restored: None,
            carries: false,
            trust: Trust::Sound,
            never_came_up: false,
            forget_without_delete: false,
            op: None,
            tries: 0,
            retry_at: Mono::ZERO,
            suspect: None,
            assign: None,
            assign_tries: 0,
            assign_after: Mono::ZERO,
            unassign: None,
            termination: Termination::Settled,
            regroup: Regroup::default(),
            blocks: BTreeMap::new(),
            counts: Counts::default(),
        }
    }

    /// An ENI that EC2 is about to be asked for.
    pub(crate) fn intended(spec: EniSpec, token: String, now: Mono) -> Self {
        let blank = Self::blank(spec.subnet.clone(), Phase::Creating, now);
        Self {
            wanted: Some(now),
            card: spec.card,
            intent: Some(Intent { token, spec }),
            ..blank
        }
    }

    /// An ENI that EC2 described.
    pub(crate) fn observed(seen: &Observed, default_card: u16, phase: Phase, now: Mono) -> Self {
        let mut eni = Self::blank(seen.subnet.clone(), phase, now);
        eni.learn(seen, default_card);
        eni
    }

    /// An ENI that is known only from the records of its pods.
    pub(crate) fn remembered(id: EniId, subnet: SubnetId, now: Mono) -> Self {
        let trust = Trust::Missing {
            since: now,
            reads: 0,
        };
        Self {
            id: Some(id),
            trust,
            ..Self::blank(subnet, Phase::Configuring, now)
        }
    }

    /// Takes over what EC2 says about the ENI itself. Its addresses are compared elsewhere.
    pub(crate) fn learn(&mut self, seen: &Observed, default_card: u16) {
        self.id = Some(seen.eni.clone());
        self.mac = Some(seen.mac);
        self.subnet = seen.subnet.clone();
        self.subnet_cidr = seen.subnet_cidr;
        if !seen.security_groups.is_empty() {
            self.groups.clone_from(&seen.security_groups);
        }
        self.address = Some(seen.primary);
        self.created_here |= seen.tagged_ours;
        if let Some(attachment) = &seen.attached {
            self.attachment = Some(attachment.id.clone());
            self.card = attachment.card;
            self.device = Some(attachment.device);
            self.primary = attachment.card == default_card && attachment.device == 0;
        }
    }

    pub(crate) fn enter(&mut self, phase: Phase, now: Mono) {
        self.phase = phase;
        self.phase_since = now;
        self.tries = 0;
        self.retry_at = Mono::ZERO;
    }

    /// Whether its free addresses can be assigned (I2).
    pub(crate) fn grantable(&self) -> bool {
        self.closed.is_none() && self.usable()
    }

    /// Whether pods on it have a network, as far as we know.
    pub(crate) fn usable(&self) -> bool {
        self.trust == Trust::Sound
            && self.index.is_some()
            && match self.phase {
                Phase::Ready => true,
                Phase::Configuring => self.carries,
                _ => false,
            }
    }

    /// Whether it will soon be grantable and has had no lasting trouble.
    pub(crate) fn on_schedule(&self, now: Mono) -> bool {
        let coming = matches!(
            self.phase,
            Phase::Creating | Phase::Unattached | Phase::Configuring
        );
        let smooth =
            self.tries <= 1 && self.resolves_soon(now) && now < self.phase_since + EXPECTED_WITHIN;
        coming && smooth && self.trust == Trust::Sound && self.closed.is_none()
    }

    /// Not suspect, or not for long: EC2's list will settle it soon.
    pub(crate) fn resolves_soon(&self, now: Mono) -> bool {
        self.suspect.is_none_or(|since| now < since + SUSPECT_LIMIT)
    }

    pub(crate) const fn leaving(&self) -> bool {
        matches!(
            self.phase,
            Phase::Draining | Phase::Detaching | Phase::Deleting
        )
    }

    /// Whether it takes one of the instance's ENI slots. An ENI that two lists of EC2 have not shown does not.
    pub(crate) fn occupies(&self) -> bool {
        let gone = self.phase == Phase::Deleting && self.attachment.is_none();
        !gone && !matches!(self.trust, Trust::Missing { reads: 2.., .. })
    }

    /// The next step, if it may be taken now.
    pub(crate) fn due(&self, now: Mono) -> Option<Action> {
        if self.op.is_some() || self.suspect.is_some() || now < self.retry_at {
            return None;
        }
        if self.trust != Trust::Sound && !self.leaving() {
            return None;
        }
        match self.phase {
            Phase::Creating => Some(Action::Create),
            Phase::Unattached => Some(Action::Attach),
            Phase::Configuring => Some(Action::Configure),
            Phase::Ready => None,
            Phase::Draining => Some(Action::Deconfigure),
            Phase::Detaching => Some(Action::Detach),
            Phase::Deleting => Some(Action::Delete),
        }
    }

    pub(crate) const fn counts(&self) -> &Counts {
        &self.counts
    }

    /// No pod and no cooldown is on it.
    pub(crate) const fn idle(&self) -> bool {
        self.counts.held == 0 && self.counts.resting == 0
    }

    /// The amount that an Assign or a Create in progress will bring.
    pub(crate) fn asked(&self) -> Option<Amount> {
        let creating = self
            .intent
            .as_ref()
            .filter(|_| self.phase == Phase::Creating)
            .map(|intent| intent.spec.amount);
        creating.or(self.assign.map(|asked| asked.amount))
    }

    /// Slots in use.
    pub(crate) fn taken(&self) -> u16 {
        let filling = self.blocks.values().filter(|block| block.fills_a_slot());
        u16::try_from(filling.count()).unwrap_or(u16::MAX)
    }

    /// Slots that are neither in use nor requested.
    pub(crate) fn room(&self, slots: u16) -> u16 {
        slots
            .saturating_sub(self.taken())
            .saturating_sub(self.asked().map_or(0, Amount::slots))
    }

    pub(crate) fn recount(&mut self) {
        let mut counts = Counts::default();
        for block in self.blocks.values() {
            counts += block.counts;
        }
        self.counts = counts;
    }

    /// Changes a block and recounts.
    pub(crate) fn with_block<R>(
        &mut self,
        net: IpNet,
        change: impl FnOnce(&mut Block) -> R,
    ) -> Option<R> {
        let block = self.blocks.get_mut(&net)?;
        let result = change(block);
        block.recount();
        self.recount();
        Some(result)
    }

    /// Changes one address and recounts.
    pub(crate) fn with_slot<R>(
        &mut self,
        address: IpAddr,
        change: impl FnOnce(&mut Slot) -> R,
    ) -> Option<R> {
        let net = self.block_of(address)?;
        self.with_block(net, |block| block.slot_mut(address).map(change))?
    }

    /// A listed address. An address of an IPv6 prefix that no pod ever had may not be listed.
    pub(crate) fn slot(&self, address: IpAddr) -> Option<&Slot> {
        self.blocks.get(&self.block_of(address)?)?.slot(address)
    }

    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.block_of(address).is_some()
    }

    fn block_of(&self, address: IpAddr) -> Option<IpNet> {
        let lengths = match address {
            IpAddr::V4(_) => [32, 28],
            IpAddr::V6(_) => [128, 80],
        };
        lengths.into_iter().find_map(|len| {
            let net = IpNet::new(address, len).ok()?.trunc();
            self.blocks.contains_key(&net).then_some(net)
        })
    }

    /// Adds a block unless it exists. A prefix takes over single addresses inside it: after a restart a pod's address is
    /// known before the prefix that contains it.
    pub(crate) fn add_block(&mut self, net: IpNet, now: Mono) {
        let own = self.address.map(IpAddr::V4);
        if self.blocks.contains_key(&net) || own == Some(net.addr()) {
            return;
        }
        let mut block = Block::new(net, now);
        let inside: Vec<IpNet> = self
            .blocks
            .keys()
            .filter(|single| net.contains(*single))
            .copied()
            .collect();
        for slot in inside
            .iter()
            .filter_map(|single| self.blocks.remove(single))
            .flat_map(|single| single.slots)
        {
            if let Some(place) = block.slot_mut(slot.address) {
                *place = slot;
            }
        }
        block.recount();
        self.blocks.insert(net, block);
        self.recount();
    }

    pub(crate) fn remove_block(&mut self, net: &IpNet) -> Option<Block> {
        let block = self.blocks.remove(net);
        self.recount();
        block
    }

    /// The address to grant next: from the fullest block, so that whole prefixes become free. Among equals, the one that was
    /// free longest.
    pub(crate) fn pick(&self) -> Option<IpAddr> {
        let open = self.blocks.values().filter(|block| block.counts.free > 0);
        open.filter_map(|block| Some((block.counts.free, block.pick()?)))
            .min()
            .map(|(_, (_, address))| address)
    }
}

#[cfg(test)]
mod tests;
