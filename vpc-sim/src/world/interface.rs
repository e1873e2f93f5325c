//! Creating, deleting and modifying interfaces.

use std::time::Duration;

use super::{
    World,
    address::{self, Given, V4, V6},
    model::{AttachmentState, Change, InterfaceType, NetworkInterface},
    request::{Attribute, CreateNetworkInterface, Pick},
    tags,
};
use crate::{
    action::Action,
    error::{ApiError, Resource},
    ids::{EniId, GroupId, VpcId, draw_mac},
};

/// ClientToken: "up to 64 ASCII characters".
const TOKEN_LENGTH: usize = 64;

impl World {
    /// CreateNetworkInterface. A repeated ClientToken with the same request returns the same interface.
    ///
    /// # Errors
    /// EC2's errors. Nothing is created or taken.
    pub fn create_network_interface(
        &mut self,
        req: CreateNetworkInterface,
        now: Duration,
    ) -> Result<NetworkInterface, ApiError> {
        self.begin(Action::CreateNetworkInterface, true, now)?;
        if let Some(token) = &req.client_token {
            if token.len() > TOKEN_LENGTH || !token.is_ascii() {
                let why = "A client token has up to 64 ASCII characters.";
                return Err(ApiError::InvalidValue {
                    name: "clientToken".into(),
                    value: token.clone(),
                    why,
                });
            }
            if let Some((first, made)) = self.tokens.get(token) {
                let same = *first == req;
                let made = self.interfaces.get(&made.id).unwrap_or(made).clone();
                return if same {
                    Ok(made)
                } else {
                    Err(ApiError::TokenMismatch {
                        token: token.clone(),
                    })
                };
            }
        }
        let eni = self.make_interface(&req)?;
        if let Some(token) = req.client_token.clone() {
            self.tokens.insert(token, (req, eni.clone()));
        }
        Ok(eni)
    }

    pub(super) fn make_interface(
        &mut self,
        req: &CreateNetworkInterface,
    ) -> Result<NetworkInterface, ApiError> {
        let subnet = self.place(&req.subnet)?.subnet.clone();
        let elsewhere = |group: &GroupId| ApiError::GroupElsewhere {
            group: group.clone(),
            subnet: subnet.id.clone(),
        };
        let groups = self.check_groups(&req.groups, &subnet.vpc, elsewhere)?;
        tags::check(&req.tags, self.quotas.tags_per_resource, &req.subnet)?;
        if self.interfaces.len() >= self.quotas.interfaces {
            return Err(ApiError::InterfaceQuota {
                limit: self.quotas.interfaces,
            });
        }
        // It is not attached yet: Attach checks the limit of the instance type.
        check_slots(1 + address::slots(&req.ipv4), most_addresses())?;
        check_slots(address::slots(&req.ipv6), most_addresses())?;
        let (v4, v6) = self.take_for(req)?;
        let eni = NetworkInterface {
            id: EniId::draw(&mut self.dice.ids),
            subnet: subnet.id,
            vpc: subnet.vpc,
            zone: subnet.zone,
            mac: draw_mac(&mut self.dice.ids),
            description: req.description.clone(),
            groups,
            interface_type: req.interface_type,
            requester_managed: false,
            source_dest_check: true,
            attachment: None,
            ipv4: v4.addresses,
            ipv4_prefixes: v4.prefixes,
            ipv6: v6.addresses,
            ipv6_prefixes: v6.prefixes,
            tags: req.tags.clone(),
        };
        self.interfaces.insert(eni.id.clone(), eni.clone());
        Ok(eni)
    }

    /// The primary address, then the others, then IPv6; if a step fails, the previous ones are undone.
    fn take_for(
        &mut self,
        req: &CreateNetworkInterface,
    ) -> Result<(Given<V4>, Given<V6>), ApiError> {
        let place = self
            .places
            .get_mut(&req.subnet)
            .expect("the caller looked the subnet up");
        let rng = &mut self.dice.addresses;
        let first = match (req.interface_type, req.primary) {
            (InterfaceType::EfaOnly, _) => Pick::Nothing,
            (_, Some(a)) => Pick::These(vec![a]),
            (_, None) => Pick::Count(1),
        };
        let mut v4 = address::take::<V4>(place, &first, rng)?;
        let rest = address::take::<V4>(place, &req.ipv4, rng)
            .inspect_err(|_| address::give_back(place, &v4))?;
        v4.addresses.extend(rest.addresses);
        v4.prefixes.extend(rest.prefixes);
        let v6 = address::take::<V6>(place, &req.ipv6, rng)
            .inspect_err(|_| address::give_back(place, &v4))?;
        Ok((v4, v6))
    }

    /// `elsewhere`: the error for a group of another VPC.
    fn check_groups(
        &self,
        groups: &[GroupId],
        vpc: &VpcId,
        elsewhere: impl Fn(&GroupId) -> ApiError,
    ) -> Result<Vec<GroupId>, ApiError> {
        if groups.is_empty() {
            return Ok(self
                .vpcs
                .get(vpc)
                .map(|v| v.default_group.clone())
                .into_iter()
                .collect());
        }
        for g in groups {
            match self.groups.get(g) {
                None => return Err(ApiError::not_found(Resource::InterfaceGroup, g)),
                Some(found) if found.vpc != *vpc => return Err(elsewhere(g)),
                Some(_) => {}
            }
        }
        let limit = self.quotas.groups_per_interface;
        if groups.len() > limit {
            return Err(ApiError::GroupsPerInterface { limit });
        }
        Ok(groups.to_vec())
    }

    /// DeleteNetworkInterface.
    ///
    /// # Errors
    /// If the interface is attached, attaching or detaching, belongs to an AWS service, or is unknown.
    pub fn delete_network_interface(&mut self, id: &EniId, now: Duration) -> Result<(), ApiError> {
        self.begin(Action::DeleteNetworkInterface, true, now)?;
        let eni = self.eni(id)?;
        if eni.requester_managed {
            return Err(ApiError::Managed { eni: id.clone() });
        }
        if eni.attachment.is_some() {
            return Err(ApiError::DeleteInUse { eni: id.clone() });
        }
        self.forget_interface(id);
        Ok(())
    }

    pub(super) fn forget_interface(&mut self, id: &EniId) {
        let Some(e) = self.interfaces.remove(id) else {
            return;
        };
        self.unusable.retain(|(eni, _)| eni != id);
        if let Some(place) = self.places.get_mut(&e.subnet) {
            address::give_back::<V4>(
                place,
                &Given {
                    addresses: e.ipv4,
                    prefixes: e.ipv4_prefixes,
                },
            );
            address::give_back::<V6>(
                place,
                &Given {
                    addresses: e.ipv6,
                    prefixes: e.ipv6_prefixes,
                },
            );
        }
    }

    /// ModifyNetworkInterfaceAttribute.
    ///
    /// # Errors
    /// If the interface, attachment or a group is unknown, or the interface belongs to an AWS service.
    pub fn modify_network_interface(
        &mut self,
        id: &EniId,
        attribute: Attribute,
        now: Duration,
    ) -> Result<(), ApiError> {
        self.begin(Action::ModifyNetworkInterfaceAttribute, true, now)?;
        let eni = self.eni(id)?;
        if eni.requester_managed {
            return Err(ApiError::Managed { eni: id.clone() });
        }
        match attribute {
            Attribute::Groups(groups) => {
                let elsewhere = |group: &GroupId| ApiError::DifferentNetworks {
                    group: group.clone(),
                    eni: id.clone(),
                };
                let groups = self.check_groups(&groups, &eni.vpc, elsewhere)?;
                self.eni_mut(id)?.groups = groups;
                self.refresh_guards();
                self.refresh_imds(id, now);
            }
            Attribute::Description(text) => self.eni_mut(id)?.description = text,
            Attribute::SourceDestCheck(enabled) => self.set_source_check(id, enabled)?,
            Attribute::DeleteOnTermination { attachment, value } => {
                let bond = self
                    .eni_mut(id)?
                    .attachment
                    .as_mut()
                    .filter(|a| a.id == attachment);
                let unknown = || ApiError::not_found(Resource::Attachment, &attachment);
                bond.ok_or_else(unknown)?.delete_on_termination = value;
            }
        }
        Ok(())
    }

    fn set_source_check(&mut self, id: &EniId, enabled: bool) -> Result<(), ApiError> {
        let eni = self.eni_mut(id)?;
        eni.source_dest_check = enabled;
        if eni
            .attachment
            .as_ref()
            .is_some_and(|a| a.state == AttachmentState::Attached)
        {
            self.changes.push(Change::Check {
                eni: id.clone(),
                enabled,
            });
        }
        Ok(())
    }
}

pub(super) fn check_slots(wanted: usize, limit: u16) -> Result<(), ApiError> {
    if wanted > usize::from(limit) {
        Err(ApiError::AddressLimit { wanted, limit })
    } else {
        Ok(())
    }
}

/// The maximum number of addresses of an unattached interface: the highest limit of all types.
pub(super) fn most_addresses() -> u16 {
    planner::limits::all()
        .iter()
        .map(|t| t.ipv4_per_eni)
        .max()
        .unwrap_or(0)
}
