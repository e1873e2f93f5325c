//! Security groups and their rules.

use crate::{
    ids::{GroupId, VpcId},
    world::{
        World,
        model::{SecurityGroup, Tags, security::Rule},
    },
};

impl World {
    /// Allows everything in both directions, unlike EC2's, so that a simple VPC needs no rules.
    pub(super) fn add_default_group(&mut self, vpc: &VpcId, six: bool) -> GroupId {
        let id = self.new_group(vpc, "default", "default VPC security group", six);
        self.set_ingress(&id, Rule::anything(six));
        id
    }

    /// A security group with EC2's first rules: nothing in, everything out.
    pub fn add_group(&mut self, vpc: &VpcId, name: &str, description: &str) -> GroupId {
        let six = self.vpcs.get(vpc).is_some_and(|v| !v.ipv6.is_empty());
        self.new_group(vpc, name, description, six)
    }

    fn new_group(&mut self, vpc: &VpcId, name: &str, description: &str, six: bool) -> GroupId {
        let id = GroupId::draw(&mut self.dice.ids);
        let group = SecurityGroup {
            id: id.clone(),
            vpc: vpc.clone(),
            name: name.to_owned(),
            description: description.to_owned(),
            ingress: Vec::new(),
            egress: Rule::anything(six),
            tags: Tags::new(),
        };
        self.groups.insert(id.clone(), group);
        id
    }

    /// Replaces the rules for packets to the group's interfaces.
    pub fn set_ingress(&mut self, group: &GroupId, rules: Vec<Rule>) {
        if let Some(group) = self.groups.get_mut(group) {
            group.ingress = rules;
        }
        self.refresh_guards();
    }

    /// Replaces the rules for packets from the group's interfaces.
    pub fn set_egress(&mut self, group: &GroupId, rules: Vec<Rule>) {
        if let Some(group) = self.groups.get_mut(group) {
            group.egress = rules;
        }
        self.refresh_guards();
    }
}
