//! Other actors: other users of the subnet, operators with a console, AWS itself.

use std::{net::IpAddr, time::Duration};

use ipamd::ec2::api::Call;
use ipnet::Ipv4Net;
use planner::{EniId, HostClaim};
use vpc_sim::{
    ids::EniId as WorldEni,
    world::{
        ManagedInterface,
        model::{AttachmentState, NetworkInterface},
        request::{
            AssignPrivateIpAddresses, AttachNetworkInterface, CreateNetworkInterface,
            DetachNetworkInterface, Pick,
        },
    },
};

use crate::{
    faults::Fault,
    state::{State, disturbances::Thing},
    surroundings::convert,
};

impl State {
    /// Applies a fault that happens once. Crashes are handled elsewhere.
    pub fn strike(&mut self, fault: Fault, now: Duration) {
        let struck = match fault {
            Fault::AttachStall => {
                self.world.stall_attaches(1);
                false // Counted when an attach meets it.
            }
            Fault::DetachStall => {
                self.world.stall_detaches(1);
                false
            }
            Fault::ForeignAttach => self.attach_foreign(now),
            Fault::ForeignManaged => self.attach_managed(now),
            Fault::ForeignDetach => self.take_eni(now, false),
            Fault::ForeignDelete => self.take_eni(now, true),
            Fault::Moved => self.move_address(now),
            Fault::PrefixTaken => self.take_prefix(now),
            Fault::PrefixAdded => self.add_prefix(now),
            Fault::HostTakes => self.claim(now),
            Fault::HostDrops => self.unclaim(),
            _ => false,
        };
        if struck {
            self.count(fault, now);
        }
    }

    /// The lowest unused device number on card 0.
    fn free_device(&self) -> u32 {
        let used = |device| {
            self.world.interfaces().any(|eni| {
                eni.attachment.as_ref().is_some_and(|attachment| {
                    attachment.instance == self.me && attachment.device == device
                })
            })
        };
        (1..).find(|device| !used(*device)).unwrap_or(1)
    }

    fn attach_foreign(&mut self, now: Duration) -> bool {
        let request = CreateNetworkInterface::plain(self.subnet.clone());
        let Ok(made) = self.world.create_network_interface(request, now) else {
            return false;
        };
        let attach = AttachNetworkInterface {
            eni: made.id.clone(),
            instance: self.me.clone(),
            card: 0,
            device: self.free_device(),
        };
        let attached = self.world.attach_network_interface(&attach, now).is_ok();
        if attached {
            self.foreign.push(made.id);
        }
        attached
    }

    fn attach_managed(&mut self, now: Duration) -> bool {
        let cap = usize::from(self.scenario.kind.max_enis);
        let here = self
            .world
            .interfaces()
            .filter(|eni| eni.attachment.is_some())
            .count();
        let request = ManagedInterface {
            instance: self.me.clone(),
            card: 0,
            device: self.free_device(),
        };
        here < cap && self.world.attach_managed(&request, now).is_ok()
    }

    /// One of our attached secondary ENIs.
    fn victim(&mut self) -> Option<NetworkInterface> {
        let ours: Vec<_> = self
            .world
            .interfaces()
            .filter(|eni| self.is_ours(eni) && self.is_attached(eni) && eni.id.0 != self.primary.0)
            .cloned()
            .collect();
        (!ours.is_empty()).then(|| self.calls.pick(&ours).clone())
    }

    fn take_eni(&mut self, now: Duration, delete: bool) -> bool {
        let Some(eni) = self.victim() else {
            return false;
        };
        let Some(attachment) = &eni.attachment else {
            return false;
        };
        self.disturbed.add(Thing::Eni(EniId(eni.id.0.clone())), now);
        let request = DetachNetworkInterface {
            attachment: attachment.id.clone(),
            force: true,
        };
        let detached = self.world.detach_network_interface(&request, now).is_ok();
        if delete {
            return detached && self.world.delete_network_interface(&eni.id, now).is_ok();
        }
        detached
    }

    /// A secondary address is moved to another interface with `AllowReassignment`.
    fn move_address(&mut self, now: Duration) -> bool {
        let mut candidates: Vec<_> = self
            .world
            .interfaces()
            .filter(|eni| self.is_ours(eni))
            .flat_map(|eni| eni.ipv4.iter().skip(1).copied())
            .collect();
        candidates.sort_unstable();
        if candidates.is_empty() {
            return false;
        }
        let address = *self.calls.pick(&candidates);
        let thief = CreateNetworkInterface::plain(self.subnet.clone());
        let Ok(thief) = self.world.create_network_interface(thief, now) else {
            return false;
        };
        let request = AssignPrivateIpAddresses {
            eni: thief.id,
            ipv4: Pick::These(vec![address]),
            allow_reassignment: true,
        };
        self.disturbed.add(Thing::Address(address.into()), now);
        self.world
            .assign_private_ip_addresses(&request, now)
            .is_ok()
    }

    /// An agent configures an address of ours on the host, or another program adds a rule for it.
    fn claim(&mut self, now: Duration) -> bool {
        let here = |eni: &&NetworkInterface| self.is_ours(eni) && self.is_attached(eni);
        let mut candidates: Vec<IpAddr> = Vec::new();
        for eni in self.world.interfaces().filter(here) {
            candidates.extend(eni.ipv4.iter().skip(1).copied().map(IpAddr::V4));
            candidates.extend(
                eni.ipv4_prefixes
                    .iter()
                    .flat_map(Ipv4Net::hosts)
                    .map(IpAddr::V4),
            );
            let six = eni
                .ipv6_prefixes
                .iter()
                .flat_map(|net| net.hosts().take(40));
            candidates.extend(six.map(IpAddr::V6));
        }
        candidates.sort_unstable();
        if candidates.is_empty() {
            return false;
        }
        for _ in 0..1 + self.calls.below(3) {
            let address = *self.calls.pick(&candidates);
            let claim = match self.calls.percent(70) {
                true => HostClaim::Own,
                false => HostClaim::Rule { priority: 100 },
            };
            self.claims.put(address, claim, now);
        }
        true
    }

    fn unclaim(&mut self) -> bool {
        let held = self.claims.len();
        if held == 0 {
            return false;
        }
        let one = self.calls.index(held);
        self.claims.drop_one(one);
        true
    }

    /// An operator unassigns a prefix in the console.
    fn take_prefix(&mut self, now: Duration) -> bool {
        let primary = convert::eni(&self.primary);
        let held = self.world.interface(&primary);
        let held = held.map_or_else(Vec::new, |eni| eni.ipv6_prefixes.clone());
        if held.is_empty() {
            return false;
        }
        let prefix = *self.calls.pick(&held);
        self.disturbed.add(Thing::Prefix(prefix.into()), now);
        self.world
            .unassign_ipv6_addresses(&primary, &[], &[prefix], now)
            .is_ok()
    }

    fn add_prefix(&mut self, now: Duration) -> bool {
        let primary = convert::eni(&self.primary);
        let one = Pick::PrefixCount(1);
        let given = self.world.assign_ipv6_addresses(&primary, &one, now);
        for prefix in given.iter().flat_map(|given| &given.prefixes) {
            self.disturbed.add(Thing::Prefix((*prefix).into()), now);
        }
        given.is_ok()
    }

    /// ENIs that a previous process of this node left unattached.
    pub fn leave_over(&mut self, now: Duration) {
        for _ in 0..self.scenario.leftovers {
            let mut request = CreateNetworkInterface::plain(self.subnet.clone());
            request.ipv4 = Pick::Count(2);
            let tag = (
                "node.k8s.amazonaws.com/instance_id".to_owned(),
                self.me.0.clone(),
            );
            request.tags.extend([tag]);
            if self.world.create_network_interface(request, now).is_ok() {
                self.count(Fault::Leftover, now);
            }
        }
    }

    /// Others use addresses according to the active windows, just before a call that would take them.
    pub fn crowd(&mut self, call: &Call, now: Duration) {
        let takes = matches!(
            call,
            Call::CreateNetworkInterface { .. } | Call::AssignPrivateIpAddresses { .. }
        );
        if !takes || self.scenario.is_ipv6() {
            return;
        }
        let exhausted = self.scenario.window(Fault::Exhausted, now).is_some();
        let fragmented = self.scenario.window(Fault::Fragmented, now).is_some();
        if !exhausted && !fragmented {
            return self.disperse();
        }
        let hosts: Vec<_> = self.scenario.subnet.hosts().collect();
        let step = if exhausted { 1 } else { 16 };
        for address in hosts
            .into_iter()
            .skip(if exhausted { 0 } else { 8 })
            .step_by(step)
        {
            if self.world.occupy(&self.subnet, address.into()) {
                self.neighbours.push(address);
            }
        }
    }

    /// The others release their addresses.
    pub fn disperse(&mut self) {
        for address in std::mem::take(&mut self.neighbours) {
            self.world.vacate(&self.subnet, address.into());
        }
    }

    /// The end of all faults: addresses and the account's buckets are free again, hanging operations complete.
    pub fn calm(&mut self, now: Duration) {
        self.closing = true;
        self.disperse();
        self.world.set_throttling(false);
        self.world.stall_attaches(0);
        self.world.stall_detaches(0);
        self.count_stalls(now);
        let leaving = |eni: &NetworkInterface| {
            eni.attachment
                .as_ref()
                .filter(|attachment| attachment.state == AttachmentState::Detaching)
                .map(|attachment| attachment.id.clone())
        };
        let stuck: Vec<_> = self.world.interfaces().filter_map(leaving).collect();
        for attachment in stuck {
            let request = DetachNetworkInterface {
                attachment,
                force: true,
            };
            drop(self.world.detach_network_interface(&request, now));
        }
        if self.calls.percent(50) {
            self.foreign_leave(now);
        }
        if self.calls.percent(50) {
            self.claims.drop_all();
        }
    }

    fn foreign_leave(&mut self, now: Duration) {
        self.just_left = self.foreign.len();
        for id in std::mem::take(&mut self.foreign) {
            let attachment = self
                .world
                .interface(&id)
                .and_then(|eni| eni.attachment.clone());
            if let Some(attachment) = attachment {
                let request = DetachNetworkInterface {
                    attachment: attachment.id,
                    force: true,
                };
                drop(self.world.detach_network_interface(&request, now));
                drop(self.world.delete_network_interface(&id, now));
            }
        }
    }

    /// Attachments that have been in transition for longer than EC2 takes were stalled.
    fn count_stalls(&mut self, now: Duration) {
        const TAIL: Duration = Duration::from_secs(21);
        let stalls: Vec<(WorldEni, AttachmentState)> = self
            .world
            .interfaces()
            .filter_map(|eni| {
                let attachment = eni.attachment.as_ref()?;
                (attachment.state != AttachmentState::Attached && attachment.at + TAIL < now)
                    .then(|| (eni.id.clone(), attachment.state))
            })
            .collect();
        for (_, state) in stalls {
            let fault = match state {
                AttachmentState::Attaching => Fault::AttachStall,
                _ => Fault::DetachStall,
            };
            self.count(fault, now);
        }
    }
}
