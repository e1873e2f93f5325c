//! What EC2 users do apart from the ENI calls: launch and terminate instances, and attach interfaces of AWS services.

use std::time::Duration;

use super::{
    World,
    model::{AttachmentState, Change, Instance, InstanceState, NetworkInterface, Tags},
    request::{CreateNetworkInterface, Pick, Pick4, Pick6},
};
use crate::{
    error::{ApiError, Resource},
    ids::{EniId, GroupId, InstanceId, SubnetId},
};

/// An instance to launch, with its primary interface attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchInstance {
    pub instance_type: String,
    /// The first subnet, if `None`.
    pub subnet: Option<SubnetId>,
    pub groups: Vec<GroupId>,
    /// In addition to the primary address of the primary interface.
    pub ipv4: Pick4,
    pub ipv6: Pick6,
    /// The role of the fake credentials in IMDS.
    pub role: String,
    pub tags: Tags,
}

impl LaunchInstance {
    #[must_use]
    pub fn plain(instance_type: &str, subnet: SubnetId) -> Self {
        Self {
            instance_type: instance_type.to_owned(),
            subnet: Some(subnet),
            ..Self::default()
        }
    }
}

impl Default for LaunchInstance {
    fn default() -> Self {
        Self {
            instance_type: "m5.large".to_owned(),
            subnet: None,
            groups: Vec::new(),
            ipv4: Pick::Nothing,
            ipv6: Pick::Nothing,
            role: "node".to_owned(),
            tags: Tags::new(),
        }
    }
}

/// An interface that an AWS service attaches to a customer's instance. The customer cannot manage it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedInterface {
    pub instance: InstanceId,
    pub card: u32,
    pub device: u32,
}

impl World {
    /// Launches an instance, which is `running` immediately.
    ///
    /// # Errors
    /// If the type, subnet or a group is unknown, or the subnet is full.
    pub fn launch_instance(
        &mut self,
        req: &LaunchInstance,
        now: Duration,
    ) -> Result<Instance, ApiError> {
        self.advance(now);
        self.type_of(&req.instance_type)?;
        let subnet = req.subnet.clone().or_else(|| self.first_subnet.clone());
        let unnamed = || ApiError::MissingParameter {
            name: "subnetId".into(),
        };
        let mut create = CreateNetworkInterface::plain(subnet.ok_or_else(unnamed)?);
        create.groups.clone_from(&req.groups);
        create.ipv4 = req.ipv4.clone();
        create.ipv6 = req.ipv6.clone();
        let eni = self.make_interface(&create)?;
        let instance = Instance {
            id: InstanceId::draw(&mut self.dice.ids),
            instance_type: req.instance_type.clone(),
            state: InstanceState::Running,
            subnet: eni.subnet,
            vpc: eni.vpc,
            zone: eni.zone,
            primary: eni.id.clone(),
            role: req.role.clone(),
            launched: now,
            tags: req.tags.clone(),
        };
        self.instances.insert(instance.id.clone(), instance.clone());
        self.attach_at_once(&eni.id, &instance.id, (0, 0), now);
        Ok(instance)
    }

    /// Attaches an interface that customers cannot manage (`requesterManaged`), in the instance's subnet.
    ///
    /// # Errors
    /// If the instance is unknown or its subnet is full.
    pub fn attach_managed(
        &mut self,
        req: &ManagedInterface,
        now: Duration,
    ) -> Result<NetworkInterface, ApiError> {
        self.advance(now);
        let unknown = || ApiError::not_found(Resource::Instance, &req.instance);
        let subnet = self
            .instances
            .get(&req.instance)
            .ok_or_else(unknown)?
            .subnet
            .clone();
        let made = self.make_interface(&CreateNetworkInterface::plain(subnet))?;
        self.attach_at_once(&made.id, &req.instance, (req.card, req.device), now);
        let eni = self.eni_mut(&made.id)?;
        eni.requester_managed = true;
        Ok(eni.clone())
    }

    fn attach_at_once(
        &mut self,
        eni: &EniId,
        instance: &InstanceId,
        (card, device): (u32, u32),
        now: Duration,
    ) {
        let bond = self.bind(eni, instance, card, device, now);
        if let Some(a) = self
            .interfaces
            .get_mut(eni)
            .and_then(|e| e.attachment.as_mut())
        {
            a.delete_on_termination = true;
        }
        self.finish_attach(eni, &bond.id, now);
    }

    /// TerminateInstances: interfaces with DeleteOnTermination are deleted immediately, the others become available.
    ///
    /// # Errors
    /// If the instance is unknown.
    pub fn terminate_instance(&mut self, id: &InstanceId, now: Duration) -> Result<(), ApiError> {
        self.advance(now);
        let instance = self
            .instances
            .get_mut(id)
            .ok_or_else(|| ApiError::not_found(Resource::Instance, id))?;
        instance.state = InstanceState::Terminated;
        let bonds: Vec<_> = self
            .interfaces
            .values()
            .filter_map(|e| Some((e.id.clone(), e.attachment.clone()?)))
            .collect();
        for (eni, bond) in bonds.into_iter().filter(|(_, b)| b.instance == *id) {
            if bond.state == AttachmentState::Attached {
                self.changes.push(Change::Cut { eni: eni.clone() });
            }
            self.finish_detach(&eni, &bond.id, now);
            if bond.delete_on_termination {
                self.forget_interface(&eni);
            }
        }
        Ok(())
    }
}
