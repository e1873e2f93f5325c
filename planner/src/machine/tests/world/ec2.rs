//! What each call does in the small EC2, and what must never be requested (I5).

use std::net::IpAddr;

use ipnet::IpNet;

use super::World;
use crate::{
    Amount, Answer, AttachmentId, Class, Command, EniId, Mono, SubnetId, event::EniAttachment,
};

impl World {
    /// No address of a live pod is on this ENI, and the ENI is ours (I5).
    fn assert_idle(&self, id: &EniId, what: &str) {
        let Some(eni) = self.enis.get(id) else { return };
        assert!(eni.observed.managed, "{what} of {id}, which is not ours");
        assert!(
            eni.observed
                .attached
                .as_ref()
                .is_none_or(|attachment| attachment.device != 0),
            "{what} of the primary ENI"
        );
        if eni.observed.attached.is_some() {
            let user = self.live.values().find(|address| self.owns(id, **address));
            assert_eq!(user, None, "{what} of {id} under a pod");
        }
    }

    pub(super) fn apply(&mut self, command: &Command) -> Result<Answer, Class> {
        let exhausted = Class::Exhausted;
        match command {
            Command::CreateEni { token, spec, .. } => {
                if let Some(id) = self
                    .by_token
                    .get(token)
                    .filter(|id| self.enis.contains_key(id))
                {
                    return Ok(Answer::Created(self.enis[id].observed.clone()));
                }
                if let Some(class) = self
                    .plots
                    .get(&spec.subnet)
                    .and_then(|plot| plot.refuses.clone())
                {
                    return Err(class);
                }
                self.affordable(&spec.subnet, spec.amount, exhausted)?;
                let groups = spec.security_groups.clone();
                let groups = groups.unwrap_or_else(|| vec!["sg-1".into()]);
                let id = self.create_in(spec.subnet.clone(), groups, spec.amount);
                self.by_token.insert(token.clone(), id.clone());
                Ok(Answer::Created(self.enis[&id].observed.clone()))
            }
            Command::AttachEni {
                eni, card, device, ..
            } => self.attach(eni, *card, *device),
            Command::ConfigureEni(what) => {
                let eni = self.enis.get_mut(&what.eni).ok_or(Class::Host)?;
                eni.observed.attached.as_ref().ok_or(Class::Host)?;
                eni.configured = true;
                Ok(Answer::Done)
            }
            Command::Assign { eni, amount, .. } => {
                let observed = &self.enis.get(eni).ok_or(Class::NotFound)?.observed;
                assert!(observed.managed, "{eni} is not ours");
                let used = observed.addresses.len() + observed.prefixes.len();
                if used + usize::from(amount.slots()) > self.slots {
                    return Err(Class::Limit);
                }
                let subnet = observed.subnet.clone();
                self.affordable(&subnet, *amount, exhausted)?;
                Ok(self.give(eni, *amount))
            }
            Command::Unassign {
                eni,
                addresses,
                prefixes,
                ..
            } => self.unassign(eni, addresses, prefixes),
            Command::DeconfigureEni { eni, .. } => {
                self.assert_idle(eni, "deconfiguring");
                if let Some(eni) = self.enis.get_mut(eni) {
                    eni.configured = false;
                }
                Ok(Answer::Done)
            }
            Command::DetachEni { eni, .. } => {
                self.assert_idle(eni, "detaching");
                let eni = self.enis.get_mut(eni).ok_or(Class::NotFound)?;
                eni.observed.attached.take().ok_or(Class::NotFound)?;
                Ok(Answer::Done)
            }
            Command::DeleteEni { eni, .. } => {
                self.assert_idle(eni, "deleting");
                if self
                    .enis
                    .get(eni)
                    .ok_or(Class::NotFound)?
                    .observed
                    .attached
                    .is_some()
                {
                    return Err(Class::InUse);
                }
                self.enis.remove(eni);
                Ok(Answer::Done)
            }
            Command::SetGroups { eni, groups, .. } => {
                let eni = self.enis.get_mut(eni).ok_or(Class::NotFound)?;
                eni.observed.security_groups.clone_from(groups);
                Ok(Answer::Done)
            }
            Command::DeleteOnTermination { .. } => Ok(Answer::Done),
            Command::Describe { .. } => Ok(Answer::Described(self.listing())),
            Command::DescribeSubnets { .. } => Ok(Answer::Subnets(self.subnet_list())),
            Command::Grant { .. } | Command::GrantAgain { .. } | Command::Refuse { .. } => {
                unreachable!("no call")
            }
        }
    }

    fn affordable(&self, subnet: &SubnetId, amount: Amount, exhausted: Class) -> Result<(), Class> {
        let plot = self.plots.get(subnet);
        let (left, fragmented) = match plot {
            Some(plot) => (plot.left, plot.fragmented),
            None => (self.left, self.fragmented),
        };
        if matches!(amount, Amount::Prefixes(_)) && fragmented {
            return Err(Class::Fragmented);
        }
        let need = usize::try_from(amount.addresses()).unwrap();
        if need > left { Err(exhausted) } else { Ok(()) }
    }

    fn attach(&mut self, id: &EniId, card: u16, device: u16) -> Result<Answer, Class> {
        let bonds: Vec<_> = self
            .enis
            .values()
            .filter_map(|eni| eni.observed.attached.as_ref())
            .collect();
        if bonds.iter().any(|attachment| attachment.device == device) {
            return Err(Class::InUse);
        }
        if bonds.len() >= self.max_enis {
            return Err(Class::Limit);
        }
        let eni = self.enis.get_mut(id).ok_or(Class::NotFound)?;
        if eni.observed.attached.is_some() {
            return Err(Class::InUse);
        }
        let attachment = AttachmentId(format!("attach-{id}"));
        eni.observed.attached = Some(EniAttachment {
            id: attachment.clone(),
            card,
            device,
            settled: true,
        });
        Ok(Answer::Attached { attachment })
    }

    fn unassign(
        &mut self,
        id: &EniId,
        addresses: &[IpAddr],
        prefixes: &[IpNet],
    ) -> Result<Answer, Class> {
        for address in self.live.values() {
            assert!(
                !addresses.contains(address),
                "{address} is taken from under a pod"
            );
            assert!(
                !prefixes.iter().any(|net| net.contains(address)),
                "{address} is taken from under a pod"
            );
        }
        let recent = |at: &Mono| self.now.since(*at) < self.cooldown;
        for address in self
            .rested
            .iter()
            .filter(|(_, at)| recent(at))
            .map(|(address, _)| address)
        {
            assert!(
                !addresses.contains(address),
                "{address} is given back while it rests"
            );
            assert!(
                !prefixes.iter().any(|net| net.contains(address)),
                "{address} is given back while it rests"
            );
        }
        let observed = &mut self.enis.get_mut(id).ok_or(Class::NotFound)?.observed;
        let before = observed.addresses.len() + observed.prefixes.len();
        observed
            .addresses
            .retain(|address| !addresses.contains(address));
        observed.prefixes.retain(|net| !prefixes.contains(net));
        if before - observed.addresses.len() - observed.prefixes.len()
            != addresses.len() + prefixes.len()
        {
            return Err(Class::InUse);
        }
        *self.left_in(id) += addresses.len() + 16 * prefixes.len();
        Ok(Answer::Done)
    }
}
