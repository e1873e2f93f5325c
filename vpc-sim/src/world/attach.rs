//! Attaching and detaching: answered immediately, completed later (`settle`).

use std::time::Duration;

use planner::limits::InstanceType;

use super::{
    World,
    interface::check_slots,
    model::{Attachment, AttachmentState, Change, Instance, InstanceState, NetworkInterface},
    request::{AttachNetworkInterface, DetachNetworkInterface},
    settle::Timer,
};
use crate::{
    action::Action,
    error::{ApiError, Resource},
    ids::{AttachmentId, EniId, InstanceId},
};

impl World {
    /// AttachNetworkInterface: the interface is `attaching` when this returns.
    ///
    /// # Errors
    /// EC2's errors: in use, device in use, per-type and per-card limits, another zone, instance not running.
    pub fn attach_network_interface(
        &mut self,
        req: &AttachNetworkInterface,
        now: Duration,
    ) -> Result<Attachment, ApiError> {
        self.begin(Action::AttachNetworkInterface, true, now)?;
        let eni = self.eni(&req.eni)?;
        if eni.requester_managed {
            return Err(ApiError::Managed {
                eni: req.eni.clone(),
            });
        }
        if eni.attachment.is_some() {
            return Err(ApiError::InterfaceInUse {
                eni: req.eni.clone(),
            });
        }
        let unknown = || ApiError::not_found(Resource::Instance, &req.instance);
        let instance = self.instances.get(&req.instance).ok_or_else(unknown)?;
        self.check_fit(eni, instance, req)?;
        let bond = self.bind(&req.eni, &req.instance, req.card, req.device, now);
        if self.timers.stuck_attaches > 0 {
            self.timers.stuck_attaches -= 1;
        } else {
            let timer = Timer::Attached {
                eni: req.eni.clone(),
                attachment: bond.id.clone(),
            };
            self.after(self.latency.attaches, now, timer);
        }
        self.advance(now);
        Ok(bond)
    }

    fn check_fit(
        &self,
        eni: &NetworkInterface,
        instance: &Instance,
        req: &AttachNetworkInterface,
    ) -> Result<(), ApiError> {
        if instance.state != InstanceState::Running {
            return Err(ApiError::InstanceState {
                instance: instance.id.clone(),
                state: instance.state.name(),
            });
        }
        if eni.zone != instance.zone {
            let (interface_zone, instance_zone) = (eni.zone.clone(), instance.zone.clone());
            return Err(ApiError::ZoneMismatch {
                interface_zone,
                instance_zone,
            });
        }
        let limits = self.type_of(&instance.instance_type)?;
        let card = usize::try_from(req.card)
            .ok()
            .and_then(|c| limits.cards.get(c));
        let instance_type = instance.instance_type.clone();
        let most = *card.ok_or(ApiError::NoSuchCard {
            card: req.card,
            instance_type: instance_type.clone(),
        })?;
        let on_card: Vec<_> = self
            .attached_to(&instance.id)
            .filter(|a| a.card == req.card)
            .collect();
        if on_card.iter().any(|a| a.device == req.device) {
            return Err(ApiError::DeviceIndexTaken {
                instance: instance.id.clone(),
                device: req.device,
            });
        }
        let count = on_card.len() + 1;
        if count > usize::from(most) {
            return Err(ApiError::AttachmentLimit {
                count,
                instance_type,
            });
        }
        fits(eni, limits)
    }

    /// The attachments of `instance` in every state: an interface that is detaching still uses its slot.
    pub(super) fn attached_to(&self, instance: &InstanceId) -> impl Iterator<Item = &Attachment> {
        self.interfaces
            .values()
            .filter_map(|e| e.attachment.as_ref())
            .filter(move |a| a.instance == *instance)
    }

    pub(super) fn bind(
        &mut self,
        eni: &EniId,
        to: &InstanceId,
        card: u32,
        device: u32,
        now: Duration,
    ) -> Attachment {
        let bond = Attachment {
            id: AttachmentId::draw(&mut self.dice.ids),
            instance: to.clone(),
            card,
            device,
            state: AttachmentState::Attaching,
            delete_on_termination: false,
            at: now,
        };
        if let Some(e) = self.interfaces.get_mut(eni) {
            e.attachment = Some(bond.clone());
        }
        bond
    }

    /// DetachNetworkInterface: the interface is `detaching` when this returns, and no longer receives packets.
    ///
    /// # Errors
    /// For the primary interface, interfaces of AWS services, an interface that is already detaching, and an unknown
    /// one.
    pub fn detach_network_interface(
        &mut self,
        req: &DetachNetworkInterface,
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::DetachNetworkInterface, true, now)?;
        let found = self.interfaces.values_mut().find_map(|e| {
            let managed = e.requester_managed;
            e.attachment
                .as_mut()
                .filter(|a| a.id == req.attachment)
                .map(|a| (e.id.clone(), managed, a))
        });
        let (eni, managed, bond) =
            found.ok_or_else(|| ApiError::not_found(Resource::Attachment, &req.attachment))?;
        if managed {
            return Err(ApiError::Managed { eni });
        }
        if bond.device == 0 {
            return Err(ApiError::PrimaryDetach { card: bond.card });
        }
        if bond.state == AttachmentState::Detaching && !req.force {
            return Err(ApiError::AttachmentState {
                attachment: req.attachment.clone(),
                state: bond.state.name(),
            });
        }
        let was = std::mem::replace(&mut bond.state, AttachmentState::Detaching);
        if was == AttachmentState::Attached {
            self.changes.push(Change::Cut { eni: eni.clone() });
        }
        self.start_detach(eni, req, now);
        Ok(())
    }

    fn start_detach(&mut self, eni: EniId, req: &DetachNetworkInterface, now: Duration) {
        if req.force {
            self.finish_detach(&eni, &req.attachment, now);
        } else if self.timers.stuck_detaches > 0 {
            self.timers.stuck_detaches -= 1;
        } else {
            let timer = Timer::Detached {
                eni,
                attachment: req.attachment.clone(),
            };
            self.after(self.latency.detaches, now, timer);
        }
        self.advance(now);
    }

    /// The type of the instance to which `eni` is attached.
    pub(super) fn type_under(&self, eni: &NetworkInterface) -> Option<&InstanceType> {
        let bond = eni.attachment.as_ref()?;
        self.type_of(&self.instances.get(&bond.instance)?.instance_type)
            .ok()
    }

    pub(super) fn type_of(&self, name: &str) -> Result<&InstanceType, ApiError> {
        let new = || self.new_types.iter().find(|t| t.name == name);
        planner::limits::lookup(name)
            .or_else(new)
            .ok_or_else(|| ApiError::not_found(Resource::InstanceType, &name))
    }
}

/// Whether the addresses of `eni` are within the limits of the type.
fn fits(eni: &NetworkInterface, limits: &InstanceType) -> Result<(), ApiError> {
    let prefixes = !(eni.ipv4_prefixes.is_empty() && eni.ipv6_prefixes.is_empty());
    if prefixes && !limits.supports_prefixes() {
        return Err(ApiError::PrefixesUnsupported {
            instance_type: limits.name.to_string(),
        });
    }
    check_slots(
        eni.ipv4.len() + eni.ipv4_prefixes.len(),
        limits.ipv4_per_eni,
    )?;
    check_slots(
        eni.ipv6.len() + eni.ipv6_prefixes.len(),
        limits.ipv4_per_eni,
    )
}
