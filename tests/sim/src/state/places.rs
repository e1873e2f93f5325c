//! The subnets of a run: what the operator wants by now, and what he wanted before.

use std::{collections::BTreeSet, time::Duration};

use planner::{
    EniClass, EniId, SecurityGroupId, SubnetId,
    placement::{Listed, NoClass, Placement, Selector, SubnetList},
    scope::subnets::{ROLE_TAG, fit},
};
use vpc_sim::{
    World,
    ids::{self, VpcId},
    world::model::NetworkInterface,
};

use crate::{
    faults::Fault,
    scenario::{Change, ClassPlan, Mode, Places, Taken},
};

/// See the module.
#[derive(Debug)]
pub struct PlaceState {
    mode: Mode,
    /// The node's subnet first.
    ids: Vec<ids::SubnetId>,
    group: ids::GroupId,
    /// The node's ENIConfig.
    class: ClassPlan,
    /// What the daemon has on disk: its class, and EC2's list.
    pub kept: Option<EniClass>,
    pub noted: SubnetList,
    /// In which subnets ENIs may have been wanted so far.
    wanted: BTreeSet<ids::SubnetId>,
    /// The operator has changed something.
    pub changed: bool,
    /// A call for subnets has failed.
    pub unlisted: bool,
}

impl PlaceState {
    /// Creates the subnets in the world.
    pub fn new(plan: &Places, world: &mut World, vpc: &VpcId, home: ids::SubnetId) -> Self {
        let group = world.add_group(vpc, "pods", "for pods");
        if !plan.extras.is_empty() {
            let block = "100.64.0.0/16".parse().expect("a block");
            world.associate_block(vpc, block);
        }
        let mut all = vec![home.clone()];
        tag(world, &home, plan.home_role);
        for extra in &plan.extras {
            let id = world.add_subnet(vpc, extra.cidr, None, extra.zone);
            tag(world, &id, extra.role);
            let step = match extra.taken {
                Taken::Nothing => None,
                Taken::Everything => Some(1),
                Taken::Blocks => Some(16),
            };
            let hosts = extra.cidr.hosts().skip(usize::from(step == Some(16)) * 8);
            for address in hosts.step_by(step.unwrap_or(1)).filter(|_| step.is_some()) {
                world.occupy(&id, address.into());
            }
            all.push(id);
        }
        if let Some(other) = all.get(2) {
            // This one has routes of its own.
            let table = world.add_route_table(vpc, Vec::new());
            world.associate_route_table(&table, other);
        }
        let mut places = Self {
            mode: plan.mode,
            ids: all,
            group,
            class: plan.class.clone(),
            kept: None,
            noted: SubnetList::default(),
            wanted: BTreeSet::new(),
            changed: false,
            unlisted: false,
        };
        if plan.known && plan.mode == Mode::Custom {
            places.kept = Some(places.class());
        }
        places.want(world);
        places
    }

    /// The class of the ENIConfig.
    fn class(&self) -> EniClass {
        let listed = self.class.listed.iter().map(|(subnet, weight)| Listed {
            subnet: SubnetId(self.ids[*subnet].0.clone()),
            weight: *weight,
        });
        let group = SecurityGroupId(self.group.0.clone());
        EniClass {
            name: "ENIConfig sim".to_owned(),
            subnets: Selector::Listed(listed.collect()),
            security_groups: self.class.group.then(|| vec![group]),
            primary_serves: false,
        }
    }

    /// Where a daemon starts to create ENIs.
    #[must_use]
    pub fn placement(&self) -> Placement {
        let home = SubnetId(self.ids[0].0.clone());
        let class = match self.mode {
            Mode::Primary => Ok(EniClass::like_primary()),
            Mode::Discovery => Ok(EniClass::by_tags(None)),
            Mode::Custom => self.kept.clone().ok_or_else(|| NoClass {
                why: "not read".to_owned(),
                remedy: String::new(),
            }),
        };
        Placement {
            class,
            subnets: self.noted.clone(),
            ..Placement::like_primary(home)
        }
    }

    /// What the API server tells, if the daemon follows an ENIConfig.
    #[must_use]
    pub fn told(&self) -> Option<EniClass> {
        (self.mode == Mode::Custom).then(|| self.class())
    }

    /// Notes which subnets the operator wants by now.
    fn want(&mut self, world: &World) {
        for id in self.fitting(world) {
            self.wanted.insert(id);
        }
    }

    /// The operator changes a tag or the ENIConfig.
    pub fn change(&mut self, world: &mut World, change: &Change) -> Fault {
        self.changed = true;
        let fault = match change {
            Change::Tag { subnet, role } => {
                tag(world, &self.ids[*subnet], Some(role));
                Fault::TagChanged
            }
            Change::Class(plan) => {
                self.class = plan.clone();
                Fault::ClassChanged
            }
        };
        self.want(world);
        fault
    }

    /// The subnets that should get ENIs now.
    #[must_use]
    pub fn fitting(&self, world: &World) -> Vec<ids::SubnetId> {
        let home = &self.ids[0];
        let zone = world.subnet(home).map(|subnet| subnet.zone.clone());
        let all = self.ids.iter().enumerate().filter(|(n, id)| {
            let Some(subnet) = world.subnet(id) else {
                return false;
            };
            let fits = match self.mode {
                Mode::Primary => *n == 0,
                Mode::Discovery => fit(&subnet.tags, *n == 0, None).is_ok(),
                Mode::Custom => self.class.listed.iter().any(|(listed, _)| listed == n),
            };
            fits && Some(&subnet.zone) == zone.as_ref()
        });
        all.map(|(_, id)| id.clone()).collect()
    }

    /// Whether the operator has ever wanted an ENI there. If a list has failed, the daemon may not know better than the
    /// primary ENI's subnet, or than the zones of an ENIConfig's subnets.
    #[must_use]
    pub fn was_wanted(&self, subnet: &ids::SubnetId) -> bool {
        self.wanted.contains(subnet)
            || self.unlisted && (*subnet == self.ids[0] || self.mode == Mode::Custom)
    }

    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether new pods get addresses of this ENI, by what the operator wants now.
    #[must_use]
    pub fn serves(&self, world: &World, eni: &NetworkInterface, primary: &EniId) -> bool {
        let is_primary = eni.id.0 == primary.0;
        match self.mode {
            Mode::Primary => true,
            Mode::Discovery => world
                .subnet(&eni.subnet)
                .is_none_or(|subnet| subnet.tags.get(ROLE_TAG).map(String::as_str) != Some("0")),
            Mode::Custom => {
                let groups = !self.class.group || eni.groups == [self.group.clone()];
                !is_primary && groups && self.fitting(world).contains(&eni.subnet)
            }
        }
    }
}

fn tag(world: &mut World, subnet: &ids::SubnetId, role: Option<&'static str>) {
    let Some(role) = role else { return };
    let tags = [(ROLE_TAG.to_owned(), role.to_owned())].into();
    let subnet = [subnet.0.clone()];
    world
        .create_tags(&subnet, &tags, Duration::ZERO)
        .expect("the subnet exists");
}
