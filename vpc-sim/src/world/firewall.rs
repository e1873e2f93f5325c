//! What the security groups of attached interfaces allow, as the fabric needs it: peers are interfaces and blocks.
//!
//! An interface that may send and receive everything has no guard. In a VPC of such interfaces, the fabric filters and
//! tracks nothing.

use super::{
    World,
    model::{
        AttachmentState, Change, NetworkInterface,
        security::{Allowed, Guard, Peer, Peers, Rule, SecurityGroup},
    },
};
use crate::ids::{EniId, GroupId};

impl World {
    /// The guard of each attached interface that may not send or receive everything.
    #[must_use]
    pub fn guards(&self) -> Vec<Guard> {
        if self.groups.values().all(|g| self.lets_everything(g)) {
            return Vec::new();
        }
        let attached = self.interfaces.values().filter(|e| is_attached(e));
        attached.filter_map(|e| self.guard(e)).collect()
    }

    fn lets_everything(&self, group: &SecurityGroup) -> bool {
        self.is_open(group, &group.ingress) && self.is_open(group, &group.egress)
    }

    fn is_open(&self, group: &SecurityGroup, rules: &[Rule]) -> bool {
        let six = self
            .vpcs
            .get(&group.vpc)
            .is_some_and(|v| !v.ipv6.is_empty());
        Rule::anything(six).iter().all(|rule| rules.contains(rule))
    }

    fn guard(&self, eni: &NetworkInterface) -> Option<Guard> {
        let (ingress, egress) = (
            self.allowed(eni, |g| &g.ingress),
            self.allowed(eni, |g| &g.egress),
        );
        (ingress.is_some() || egress.is_some()).then(|| Guard {
            eni: eni.id.clone(),
            ingress,
            egress,
        })
    }

    /// The rules of all groups of an interface; none if one of the groups allows everything.
    fn allowed(
        &self,
        eni: &NetworkInterface,
        rules: fn(&SecurityGroup) -> &Vec<Rule>,
    ) -> Option<Vec<Allowed>> {
        let mut allowed = Vec::new();
        for group in eni.groups.iter().filter_map(|g| self.groups.get(g)) {
            if self.is_open(group, rules(group)) {
                return None;
            }
            allowed.extend(rules(group).iter().map(|rule| Allowed {
                protocol: rule.protocol,
                peer: match &rule.peer {
                    Peer::Block(block) => Peers::Block(*block),
                    Peer::Group(group) => Peers::Interfaces(self.members(group)),
                },
            }));
        }
        Some(allowed)
    }

    fn members(&self, group: &GroupId) -> Vec<EniId> {
        let members = self
            .interfaces
            .values()
            .filter(|e| e.groups.contains(group));
        let attached = members.filter(|e| is_attached(e));
        attached.map(|e| e.id.clone()).collect()
    }

    /// After every change of rules, of an interface's groups, or of what is attached.
    pub(super) fn refresh_guards(&mut self) {
        let guards = self.guards();
        if guards != self.guarded {
            self.guarded.clone_from(&guards);
            self.changes.push(Change::Guarded { guards });
        }
    }
}

fn is_attached(eni: &NetworkInterface) -> bool {
    let state = eni.attachment.as_ref().map(|a| a.state);
    state == Some(AttachmentState::Attached)
}
